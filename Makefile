# All programs run from .venv, which `setup` makes; once it is there, `setup` checks that in a fraction of a second.

BIN := .venv/bin
MARKET ?= simulated
TESTS ?= tests
# Of test: processes that share all tests. Which stay together, and which begin, says tests/conftest.py.
AT_ONCE ?= 2
SHARE_OUT := --dist loadscope --no-loadscope-reorder
# Tests start hundreds of Pythons: where the environment forbids .pyc files, each would compile its packages anew.
KEEPING_COMPILED := PYTHONDONTWRITEBYTECODE=
STACKS ?= '*-compute'
# Of bench-ingest, see docs/benchmarks.md.
TICKERS ?= 100
DAYS ?= 5
LATENCY_MS ?= 150
RATE ?= 50
IN_FLIGHT ?= 50
FAULTS ?= 0.05
WORKERS ?= 1,2,4,8
# Of bench-training, see docs/training_benchmarks.md. TORCH=1 installs PyTorch into build/torch first.
BATCHES ?= 256,1024,4096
SEQUENCES ?= 65536
WINDOWS ?= 200000
TORCH ?=
TYPED := $(wildcard app dashboard embedded examples scripts benchmarks infra lambdas emr docker tests)
CACHES := .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage

WITH_NODE := PATH="$(CURDIR)/$(BIN):$$PATH"
CDK := $(WITH_NODE) node_modules/.bin/cdk
# The variable leaves out a notice about the future of Material (docs/adr/0033-docs-with-mkdocs.md). Without --quiet, under which
# MkDocs counts no warnings and so is not strict.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

.DEFAULT_GOAL := help
.PHONY: help setup run test chaos bench-ingest bench-scaling bench-forecast bench-training bench-serving synth emr bootstrap deploy destroy docs check check-cloud fix clean distclean

help: ## list what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup: ## install all that is needed (the other targets do it themselves), and Chromium, which tests use
	@python3 scripts/setup.py $(if $(filter setup test,$(MAKECMDGOALS)),--with-browser)

run: setup ## run the whole flow on this machine; MARKET=simulated, ARGS='...' are passed on
	$(BIN)/stockflow run --market "$(MARKET)" $(ARGS)

test: setup ## run the tests in TESTS=tests, all of them in AT_ONCE=2 processes; ARGS='-k name' are passed on to pytest
	$(KEEPING_COMPILED) $(BIN)/pytest $(if $(filter tests,$(TESTS)),--numprocesses $(AT_ONCE) $(SHARE_OUT)) $(TESTS) $(ARGS)

chaos: setup ## run the heavy fault tests that `make test` only samples
	$(BIN)/pytest -m chaos tests $(ARGS)

bench-ingest: setup ## time the ingest against other ways; TICKERS=100 DAYS=5 LATENCY_MS=150 ROUNDS=3 ... change it
	$(BIN)/python -m benchmarks.ingest --tickers "$(TICKERS)" --days "$(DAYS)" --latency-ms "$(LATENCY_MS)" \
	  --rate "$(RATE)" --in-flight "$(IN_FLIGHT)" --rounds "$(or $(ROUNDS),3)" --faults "$(FAULTS)" \
	  --workers "$(WORKERS)" $(if $(ARMS),--arms "$(ARMS)")

node_modules: package.json package-lock.json | setup
	$(WITH_NODE) $(BIN)/npm ci --silent
	@touch node_modules

bench-scaling: setup ## measure how ingest scales to ARGS='--tickers 10000 --shards 100'
	$(BIN)/python -m benchmarks.scaling $(ARGS)

bench-forecast: setup ## measure what the forecasts are worth, by feature; BARS=file.parquet takes real bars
	$(BIN)/python -m benchmarks.forecast $(if $(BARS),--bars "$(BARS)") $(ARGS)

bench-training: setup ## time the training against other ways; TORCH=1 BATCHES=256,1024 ROUNDS=5 ... change it
	$(BIN)/python -m benchmarks.training --batches "$(BATCHES)" --rounds "$(or $(ROUNDS),5)" --windows "$(WINDOWS)" \
	  --sequences "$(SEQUENCES)" $(if $(ARMS),--arms "$(ARMS)") $(if $(TORCH),--torch)

bench-serving: setup ## time the stream against the original's way; ARGS='--tickers 10,500 --batches 20'
	$(BIN)/python -m benchmarks.serving $(ARGS)

synth: setup node_modules ## write the CloudFormation templates into cdk.out; ARGS='-c NAME=VALUE' are passed on
	$(CDK) synth --quiet $(ARGS)

emr: setup ## build the Python environment and the certificates of the EMR cluster into build/emr
	@python3 scripts/build_emr.py

bootstrap: setup node_modules ## prepare an AWS account and region for the CDK, once
	$(CDK) bootstrap $(ARGS)

deploy: emr node_modules ## deploy both stacks to the AWS account of your credentials; see docs/deploy.md
	$(CDK) deploy --all $(ARGS)

destroy: setup node_modules ## destroy the compute stack; STACKS=--all takes the data stack too, but keeps the buckets
	$(CDK) destroy $(STACKS) $(ARGS)

docs: setup ## build the documentation as a site into build/site; any warning is an error
	$(MKDOCS) build --strict

check: setup ## lint, check formats, types, import rules, the lock file and the documentation; changes nothing
	build/tools/bin/uv lock --check --offline --quiet
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict $(TYPED)
	$(BIN)/mypy --strict --command "$$(cat app.py)"
	$(BIN)/lint-imports
	$(MKDOCS) build --strict

check-cloud: setup ## carry out the container recipes on a bare Debian; needs root and debootstrap
	$(BIN)/python scripts/try_recipes.py $(ARGS)

fix: setup ## repair what ruff can repair, and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove the caches of the tools
	rm -rf $(CACHES)
	find . -path ./.venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove .venv and build/ too; only Horovod's wheel stays, in the user's cache
	rm -rf .venv build node_modules cdk.out

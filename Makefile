# All programs run from .venv, which `setup` makes; once it is there, `setup` checks that in a fraction of a second.

BIN := .venv/bin
MARKET ?= simulated
TESTS ?= tests
TYPED := $(wildcard app embedded scripts benchmarks infra tests)
CACHES := .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage

.DEFAULT_GOAL := help
.PHONY: help setup run test chaos check fix clean distclean

help: ## list what make can do
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## install all that is needed (the other targets do it themselves)
	@python3 scripts/setup.py

run: setup ## run the whole flow on this machine; MARKET=simulated, ARGS='...' are passed on
	$(BIN)/stockflow run --market "$(MARKET)" $(ARGS)

test: setup ## run the tests in TESTS=tests; ARGS='-k name' are passed on to pytest
	$(BIN)/pytest $(TESTS) $(ARGS)

chaos: setup ## run the heavy fault tests that `make test` only samples
	$(BIN)/pytest -m chaos tests $(ARGS)

check: setup ## lint, check formats, types, import rules and the lock file; changes nothing
	build/tools/bin/uv lock --check --offline --quiet
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict $(TYPED)
	$(BIN)/lint-imports

fix: setup ## repair what ruff can repair, and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove the caches of the tools
	rm -rf $(CACHES)
	find . -path ./.venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove .venv and build/ too; only Horovod's wheel stays, in the user's cache
	rm -rf .venv build

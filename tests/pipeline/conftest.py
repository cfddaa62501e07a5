"""Real components, shared by the tests of this folder: an embedded S3, a local Yahoo, a trained small run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from app import contract
from app.storage import Bucket
from embedded.aws.account import client
from embedded.local import LocalOptions, running
from embedded.services import clean_environ, start_aws, start_yahoo
from embedded.unused_grants import judge_calls
from tests.pipeline.stack import Stack

TICKERS = ("SIM001", "SIM002", "SIM003", "SIM004")
SIMULATED = ("--sim", "tickers=4", "--sim", "sessions=5")
_BUCKETS = {
    contract.ENV_MARKET_BUCKET: "test-market",
    contract.ENV_MODEL_BUCKET: "test-model",
    contract.ENV_PREDICTIONS_BUCKET: "test-predictions",
}


@dataclass(frozen=True)
class World:
    """An embedded S3 and a local Yahoo, and how a phase is started against them."""

    environ: dict[str, str]

    @property
    def run_id(self) -> str:
        return self.environ[contract.ENV_RUN_ID]

    def bucket(self, env: str) -> Bucket:
        return Bucket(self.environ[env], client("s3", self.environ[contract.ENV_AWS_ENDPOINT_URL]))

    @property
    def market(self) -> Bucket:
        return self.bucket(contract.ENV_MARKET_BUCKET)

    @property
    def models(self) -> Bucket:
        return self.bucket(contract.ENV_MODEL_BUCKET)

    @property
    def predictions(self) -> Bucket:
        return self.bucket(contract.ENV_PREDICTIONS_BUCKET)

    def with_run(self, run_id: str, **variables: str) -> World:
        return replace(self, environ={**self.environ, contract.ENV_RUN_ID: run_id, **variables})

    def with_empty_market(self, run_id: str, **variables: str) -> World:
        """Another run, in a market bucket of its own, where no bar is held yet."""
        bucket = f"market-of-{run_id}-{uuid.uuid4().hex[:8]}"
        client("s3", self.environ[contract.ENV_AWS_ENDPOINT_URL]).create_bucket(Bucket=bucket)
        return self.with_run(run_id, **variables, **{contract.ENV_MARKET_BUCKET: bucket})

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "app.cli", *arguments],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def stockflow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.popen(*arguments)
        out, err = process.communicate(timeout=200)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def must(self, *arguments: str) -> None:
        done = self.stockflow(*arguments)
        assert done.returncode == 0, done.stderr

    def result(self, phase: str) -> Any:
        return self.market.get_json(contract.result_key(self.run_id, phase))

    def copy_run(self, run_id: str) -> World:
        """This run's plan, coverage and dataset under another run id."""
        copied = self.with_run(run_id)
        for make_key in (contract.plan_key, contract.coverage_key):
            body = self.market.get(make_key(self.run_id))
            self.market.put(make_key(run_id), body.replace(f'"{self.run_id}"'.encode(), f'"{run_id}"'.encode()))
        for key in self.models.keys(f"{contract.DATASETS_PREFIX}{self.run_id}/"):
            self.models.put(key.replace(f"/{self.run_id}/", f"/{run_id}/"), self.models.get(key))
        return copied


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    environ = clean_environ(os.environ)
    aws = start_aws(0, environ)
    try:
        yahoo = start_yahoo("simulated", 0, SIMULATED, environ)
        try:
            s3 = client("s3", aws.url)
            for name in _BUCKETS.values():
                s3.create_bucket(Bucket=name)
            environ |= {contract.ENV_AWS_ENDPOINT_URL: aws.url, contract.ENV_YAHOO_URL: yahoo.url, **_BUCKETS}
            environ |= {contract.ENV_NOW: yahoo.ready["now"], contract.ENV_RUN_ID: "base"}
            yield World(environ)
        finally:
            yahoo.stop()
    finally:
        aws.stop()


@pytest.fixture(scope="session")
def dataset(world: World) -> World:
    """A run that has its dataset."""
    world.must("ingest", "--tickers", ",".join(TICKERS), "--set", "ingest.days=7")
    world.must("dataset", "--set", "dataset.horizons_min=[2,5]", "--set", "dataset.validation_days=1")
    return world


@pytest.fixture(scope="session")
def trained(dataset: World) -> World:
    """A run that has its model, of all features, promoted."""
    features = json.dumps(contract.FEATURES)
    dataset.must("train", "--set", "training.epochs=2", "--set", f"training.features={features}")
    dataset.must("promote", "--set", "gate.min_skill=-1")  # after two epochs, whatever it is worth
    return dataset


@pytest.fixture(scope="session")
def served(trained: World) -> World:
    """A run whose last session has been streamed."""
    trained.must("serve", "--speed", "100000")
    return trained


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The deployed stack over the small market, with nothing done yet."""
    options = LocalOptions(yahoo_flags=(*SIMULATED, "--latency-ms", "30"))
    with running(options, os.environ, lambda line: None) as local:
        yield Stack(local)


@pytest.fixture(scope="session")
def first_calls(stack: Stack) -> tuple[str, dict[str, Any]]:
    """An execution that went all the way, the first one, and the calls that were made until then."""
    execution = stack.run()
    assert execution.status == "SUCCEEDED", execution.cause
    return execution.name, judge_calls(stack.local.calls())


@pytest.fixture(scope="session")
def first_run(first_calls: tuple[str, dict[str, Any]]) -> str:
    """The name of that execution: there are bars, a dataset, a model and predictions."""
    return first_calls[0]

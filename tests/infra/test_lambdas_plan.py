"""The handlers up to the dataset, from the very folder that is deployed, with moto's S3 and Step Functions."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.server import ThreadedMotoServer

from app import contract
from app.errors import (
    AlreadyServed,
    FleetBusy,
    ServingError,
    SettingsError,
    TooFewBars,
    UniverseError,
    YahooError,
)
from app.ingest.counts import FetchCount
from app.ingest.plan import Plan, read_plan
from app.ingest.report import TickerReport
from app.storage import Bucket
from app.workflow.fleet import ingesting_elsewhere
from infra.lambda_code import stage
from infra.settings import Deployment
from tests.infra.handlers import Handler, load_handler

HANDLERS = ("validate_input", "plan_shards", "check_coverage")
RUNTIME = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")
"""What the Lambda runtime has besides the standard library."""
NOW = "2026-03-24T22:00:00+00:00"
INPUT = {"universe": ["A", "B", "C"], "now": NOW, "settings": {"ingest": {"days": 6, "shards": 2}}}
PLACE = {contract.ENV_MARKET_BUCKET: "market", contract.ENV_MODEL_BUCKET: "models"}
DEPLOYMENT = {contract.ENV_DEPLOYMENT: "prod"}
ACCOUNT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def asset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lambdas")
    stage(folder, Deployment.model_validate({"ingestion": {"max_instances": 3, "shard_vcpus": 8}}))
    return folder


@pytest.fixture
def handler(asset: Path) -> Callable[[str], Handler]:
    """A handler of the asset, in this process: `app` is the repository's."""

    return partial(load_handler, folder=asset)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", contract.ENV_FLEET_GROUP, contract.ENV_METRICS_LOG_GROUP):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**ACCOUNT, **PLACE, **DEPLOYMENT}.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        for bucket in PLACE.values():
            boto3.client("s3").create_bucket(Bucket=bucket)
        yield


@pytest.fixture
def machine(aws: None) -> str:
    states = boto3.client("stepfunctions")
    role = "arn:aws:iam::123456789012:role/machine"
    arn: str = states.create_state_machine(name="stockflow", definition='{"States": {}}', roleArn=role)[
        "stateMachineArn"
    ]
    return arn


def start(machine: str, name: str, asked: Any) -> dict[str, Any]:
    """A running execution; returns what the first state hands to the Lambda."""
    told = boto3.client("stepfunctions").start_execution(
        stateMachineArn=machine, name=name, input=asked if isinstance(asked, str) else json.dumps(asked)
    )
    return {"input": asked, "execution": {"id": told["executionArn"]}, "machine": machine}


def write_manifests(plan: Plan, market: Bucket, **failed: str) -> None:
    """As the shards leave them; failed: the errors of tickers that got nothing."""
    for shard in plan.shards:
        tickers = [
            TickerReport(
                ticker,
                "failed" if ticker in failed else "complete",
                rows=0 if ticker in failed else 100,
                days={s.day.isoformat(): "failed" if ticker in failed else "complete" for s in plan.sessions},
                missing={s.day.isoformat(): s.minutes for s in plan.sessions} if ticker in failed else {},
                error=failed.get(ticker, ""),
                fetch=FetchCount(requests=4, retries=2, rate_limited=1),
            ).to_json()
            for ticker in shard.tickers
        ]
        market.put_json(contract.manifest_key(plan.run_id, shard.name), {"shard": shard.name, "tickers": tickers})


def planned(
    handler: Callable[[str], Handler], machine: str, name: str = "evening", **changes: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Order and plan of the execution of this name, with INPUT and these changes of it."""
    order = handler("validate_input")(start(machine, name, {**INPUT, **changes}), None)
    return order, handler("plan_shards")(order, None)


def planned_days(run_id: str) -> list[int]:
    return [session.day.day for session in read_plan(run_id, Bucket("market")).sessions]


def test_the_plan_is_made_of_the_order_and_the_fleet_is_as_wide_as_its_shards(
    handler: Callable[[str], Handler], machine: str
) -> None:
    order, plan = planned(handler, machine)
    assert plan == {"shards": 2, "instances": 2, "tickers": 3, "sessions": 4}
    stored = read_plan("evening", Bucket("market"))
    assert [session.day.isoformat() for session in stored.sessions] == [f"2026-03-{day}" for day in (19, 20, 23, 24)]
    assert stored.tickers == ("A", "B", "C")
    order["settings"]["ingest"]["shards"] = 100
    order["universe"] = [f"T{i}" for i in range(200)]
    assert handler("plan_shards")(order, None)["instances"] == 3
    assert read_plan("evening", Bucket("market")).workers == 3  # of 100 shards; they share the budget of requests


def test_a_repeated_plan_is_the_same(handler: Callable[[str], Handler], machine: str) -> None:
    order, _ = planned(handler, machine)
    before = Bucket("market").get(contract.plan_key("evening"))
    handler("plan_shards")(order, None)
    assert Bucket("market").get(contract.plan_key("evening")) == before


# --- what is planned, and what is refused before anything is started ------------------------------


@pytest.mark.parametrize(
    ("now", "days"),
    [
        ("2026-03-24T20:00:00+00:00", [19, 20, 23, 24]),  # the close
        ("2026-03-24T19:59:59+00:00", [19, 20, 23]),
    ],
)
def test_only_sessions_that_have_closed_are_planned(
    handler: Callable[[str], Handler], machine: str, now: str, days: list[int]
) -> None:
    planned(handler, machine, now=now)
    assert planned_days("evening") == days


def test_without_ingest_only_sessions_that_have_bars_are_planned(
    handler: Callable[[str], Handler], machine: str
) -> None:
    with pytest.raises(TooFewBars, match="no bars are stored for 2026-03-19 to 2026-03-24: start with the phase ing"):
        planned(handler, machine, phases=["dataset"], name="first")
    assert Bucket("market").keys(contract.RUNS_PREFIX) == []
    for day in (date(2026, 3, 20), date(2026, 3, 23)):
        Bucket("market").put(contract.bars_key(day, contract.compact_part("r")), b"not read")
    assert planned(handler, machine, phases=["dataset"], name="second")[1]["sessions"] == 2
    assert planned_days("second") == [20, 23]


def test_serving_without_a_model_is_refused_unless_one_is_trained(
    handler: Callable[[str], Handler], machine: str
) -> None:
    without_training = ["ingest", "serve"]
    with pytest.raises(ServingError, match="no model has been promoted: start with the phases ingest, dataset and tra"):
        planned(handler, machine, phases=without_training, name="first")
    assert Bucket("market").keys(contract.RUNS_PREFIX) == []
    planned(handler, machine, phases=["ingest", "dataset"], name="second")
    planned(handler, machine, phases=["ingest", "dataset", "train", "serve"], name="third")
    Bucket("models").put_json(contract.CURRENT_MODEL_KEY, {"model_id": "m"})
    planned(handler, machine, phases=without_training, name="fourth")


def test_a_run_that_has_been_served_is_refused(handler: Callable[[str], Handler], machine: str) -> None:
    Bucket("market").put_json(contract.result_key("evening", "serve"), {})
    with pytest.raises(AlreadyServed, match="run evening has been served: start a new run id"):
        planned(handler, machine)
    planned(handler, machine, name="night", phases=["ingest"], run_id="evening")


# --- coverage -----------------------------------------------------------------------------------


def test_coverage_is_judged_published_and_left_as_the_phases_result(
    handler: Callable[[str], Handler], machine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    order, _ = planned(handler, machine)
    market = Bucket("market")
    write_manifests(read_plan("evening", market), market)
    digest = handler("check_coverage")(order, None)
    statuses = {"complete": 3, "partial": 0, "delisted": 0, "failed": 0}
    assert digest == {"requested": 3, "statuses": statuses, "rows": 300, "coverage": 1.0, "days": 4}
    published = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert published[contract.METRICS_DIMENSION] == "prod"
    assert published[contract.METRIC_COVERAGE] == 1
    assert (published[contract.METRIC_REQUESTS], published[contract.METRIC_RATE_LIMITED]) == (12, 3)
    result = market.get_json(contract.result_key("evening", "ingest"))
    assert (result["phase"], result["rows"], result["where"]) == ("ingest", 300, "s3://market/bars/")
    assert 0 <= result["wall_s"] < 60
    assert result["requests"] == 12


def test_a_low_coverage_is_published_before_it_fails(
    handler: Callable[[str], Handler], machine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    order, _ = planned(handler, machine)
    market = Bucket("market")
    write_manifests(read_plan("evening", market), market, B="too busy", C="too busy")
    with pytest.raises(YahooError, match="2 of 3 tickers have no complete answer, first B: too busy"):
        handler("check_coverage")(order, None)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])[contract.METRIC_COVERAGE] == pytest.approx(1 / 3)
    assert not market.exists(contract.result_key("evening", "ingest"))


@pytest.mark.parametrize(
    ("asked", "error"), [({"phases": ["fit"]}, SettingsError), ({"universe": "A B/C"}, UniverseError)]
)
def test_a_wrong_input_fails_in_the_first_state(
    handler: Callable[[str], Handler], machine: str, asked: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        handler("validate_input")(start(machine, "evening", asked), None)


def test_the_first_state_fetches_the_sp500_from_where_its_environment_says(
    handler: Callable[[str], Handler], machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(contract.ENV_SP500_URL, "file:///constituents.csv")
    with pytest.raises(SettingsError, match=r"STOCKFLOW_SP500_URL='file:///constituents\.csv' is not https"):
        handler("validate_input")(start(machine, "evening", {"universe": "sp500"}), None)


def test_training_alone_takes_the_dataset_that_was_built_last(handler: Callable[[str], Handler], machine: str) -> None:
    event = start(machine, "night", {"phases": ["train"]})
    with pytest.raises(SettingsError, match="start with phases ingest and dataset"):
        handler("validate_input")(event, None)
    Bucket("models").put_json(contract.LATEST_DATASET_KEY, {"run_id": "evening"})
    assert handler("validate_input")(event, None)["dataset_run"] == "evening"


# --- one fleet for all executions ---------------------------------------------------------------


@pytest.fixture
def fleet(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment that has an ingest fleet of its own."""
    monkeypatch.setenv(contract.ENV_FLEET_GROUP, "ingest-fleet")


@pytest.mark.usefixtures("fleet")
def test_the_execution_that_started_first_has_the_fleet(handler: Callable[[str], Handler], machine: str) -> None:
    first, second = (start(machine, name, INPUT) for name in ("first", "second"))
    validate = handler("validate_input")
    assert validate(first, None)["run_id"] == "first"
    with pytest.raises(FleetBusy, match=r"^execution first has the ingest fleet since 20.* UTC: wait for its end, or"):
        validate(second, None)
    boto3.client("stepfunctions").stop_execution(executionArn=first["execution"]["id"])
    assert validate(second, None)["run_id"] == "second"


def test_where_batch_scales_by_itself_any_number_may_ingest(handler: Callable[[str], Handler], machine: str) -> None:
    start(machine, "first", INPUT)
    assert handler("validate_input")(start(machine, "second", INPUT), None)["run_id"] == "second"


@pytest.mark.usefixtures("fleet")
def test_an_execution_that_does_not_ingest_neither_waits_for_the_fleet_nor_has_it(
    handler: Callable[[str], Handler], machine: str
) -> None:
    Bucket("models").put_json(contract.LATEST_DATASET_KEY, {"run_id": "evening"})
    validate = handler("validate_input")
    start(machine, "serving", {**INPUT, "phases": ["serve"]})
    start(machine, "ingesting", INPUT)
    assert validate(start(machine, "training", {"phases": ["train"]}), None)["run_id"] == "training"
    holiday = {**INPUT, "now": "2026-04-03T22:00:00+00:00", "only_in_sessions": True}
    assert validate(start(machine, "holiday", holiday), None)["closed"] is True


def test_an_input_that_cannot_be_read_counts_as_one_that_ingests(machine: str) -> None:
    states = boto3.client("stepfunctions")
    asked: dict[str, Any] = {"all": {}, "odd": {"phases": "?"}, "list": [], "none": {"phases": ["train"]}, "own": {}}
    arns = {name: start(machine, name, value)["execution"]["id"] for name, value in asked.items()}
    found = ingesting_elsewhere(states, machine, arns["own"])
    assert [arn for arn, _ in found] == [arns[name] for name in ("all", "odd", "list")]
    assert [started for _, started in found] == sorted(started for _, started in found)


# --- in the runtime of a Lambda -----------------------------------------------------------------


@pytest.fixture(scope="module")
def bare_python(
    asset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs code where nothing can be imported but the standard library, boto3, what it needs, and the asset."""
    packages = tmp_path_factory.mktemp("runtime")
    for name in RUNTIME:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        origin = origin.parent if origin.name == "__init__.py" else origin
        (packages / origin.name).symlink_to(origin)

    def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
        lines = f"import sys; sys.path[:0] = [{str(asset)!r}, {str(packages)!r}]\n{code}"
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", lines],
            env={"PATH": os.environ["PATH"], **environ},
            cwd=packages,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.parametrize("module", ["pydantic", "pyarrow", "numpy", "exchange_calendars", "click", "rich", "pandas"])
def test_the_bare_runtime_lacks_what_a_lambda_lacks(bare_python: Callable[..., Any], module: str) -> None:
    assert f"No module named '{module}'" in bare_python(f"import {module}").stderr


@pytest.mark.parametrize("name", HANDLERS)
def test_a_handler_imports_nothing_that_a_lambda_lacks(bare_python: Callable[..., Any], name: str) -> None:
    done = bare_python(f"import {name}; print(callable({name}.handler))")
    assert (done.stdout, done.stderr) == ("True\n", "")


FLOW = """
import json, os
import boto3
import check_coverage, plan_shards, validate_input

for bucket in ("market", "models"):
    boto3.client("s3").create_bucket(Bucket=bucket)
states = boto3.client("stepfunctions")
machine = states.create_state_machine(name="m", definition='{"States": {}}', roleArn="arn:aws:iam::123456789012:role/m")
started = states.start_execution(stateMachineArn=machine["stateMachineArn"], name="e", input="{}")
execution = {"id": started["executionArn"]}
asked = json.loads(os.environ["INPUT"])
order = validate_input.handler(
    {"input": asked, "execution": execution, "machine": machine["stateMachineArn"]}, None
)
plan = plan_shards.handler(json.loads(json.dumps(order)), None)
from app.errors import YahooError
try:
    check_coverage.handler(order, None)
except YahooError as exc:
    print(json.dumps([plan, str(exc)]))
"""


def test_the_handlers_run_in_the_runtime_of_a_lambda(bare_python: Callable[..., Any]) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = {contract.ENV_AWS_ENDPOINT_URL: f"http://{host}:{port}", "NO_PROXY": host}
        done = bare_python(
            FLOW, INPUT=json.dumps({**INPUT, "only_in_sessions": True}), **url, **ACCOUNT, **PLACE, **DEPLOYMENT
        )
    finally:
        server.stop()
    assert done.stderr == ""
    plan, told = json.loads(done.stdout)
    assert plan == {"shards": 2, "instances": 2, "tickers": 3, "sessions": 4}
    assert told.startswith("shard 0000-of-0002-")

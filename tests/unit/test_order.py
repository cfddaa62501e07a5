"""What an execution is asked for: defaults, what an input changes, and what a wrong one is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

from app import contract
from app.errors import SettingsError, StockflowError, UniverseError
from app.ingest.universe import DOW_30, SP_100
from app.sessions import sessions_between
from app.settings import Settings, load, place_from_environ
from app.storage import Bucket
from app.workflow.names import CLUSTER_NAME, cluster_name, default_run_id, job_prefix
from app.workflow.order import asked_phases, make_order
from app.workflow.session_table import SessionTable
from tests.fakes import bucket

MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:stockflow"
EXECUTION = "arn:aws:states:us-east-1:123456789012:execution:stockflow:tuesday"
NOW = datetime(2025, 12, 2, 22, 0, tzinfo=UTC)
TABLE = SessionTable(sessions_between(date(2025, 10, 1), date(2025, 12, 31)))
SCHEMA = Settings.model_json_schema()
DEFAULTS: dict[str, Any] = {
    "universe": "dow30",
    "settings": Settings().model_dump(mode="json"),
    "training": {"instance_type": "ml.g4dn.xlarge", "instances": 2, "processes": 1},
    "training_instance_types": ["ml.g4dn.xlarge", "ml.g4dn.12xlarge", "ml.g5.xlarge"],
}


def no_sp500() -> tuple[str, ...]:
    raise AssertionError("sp500 is not asked for")


def ordered(
    asked: Any,
    models: Bucket | None = None,
    execution: str = EXECUTION,
    sp500: Callable[[], tuple[str, ...]] = no_sp500,
) -> dict[str, Any]:
    order = make_order(asked, execution, MACHINE, DEFAULTS, SCHEMA, TABLE, models or bucket(), NOW, sp500)
    assert json.loads(json.dumps(order)) == order
    return order


def refused(asked: Any, models: Bucket | None = None) -> str:
    with pytest.raises(StockflowError) as caught:
        ordered(asked, models)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SettingsError | UniverseError)
    return str(caught.value)


def with_dataset(run_id: str) -> Bucket:
    models = bucket()
    models.put_json(contract.dataset_spec_key(run_id), {})
    models.put_json(contract.LATEST_DATASET_KEY, {"run_id": run_id})
    return models


def test_an_empty_input_asks_for_everything_by_default() -> None:
    order = ordered({})
    assert order["phases"] == {"plan": True, "ingest": True, "dataset": True, "train": True, "serve": True}
    assert (order["run_id"], order["dataset_run"]) == ("tuesday", "tuesday")
    assert (order["execution"], order["machine"]) == (EXECUTION, MACHINE)
    assert order["job_prefix"] == job_prefix(EXECUTION)
    assert order["universe"] == sorted(DOW_30)
    assert (order["closed"], order["now"]) == (False, "2025-12-02T22:00:00+00:00")
    assert order["training"] == DEFAULTS["training"]


def test_its_settings_are_what_a_phase_reads_from_its_environment() -> None:
    order = ordered({"settings": {"training": {"epochs": 8}, "dataset": {"exclude_days": ["2025-12-01"]}}})
    loaded = load({contract.ENV_SETTINGS: order["settings_json"]})
    assert loaded.model_dump(mode="json") == order["settings"]
    assert (loaded.training.epochs, loaded.dataset.exclude_days) == (8, (date(2025, 12, 1),))
    assert loaded.training.batch == Settings().training.batch


@pytest.mark.parametrize(("instances", "processes", "ranks"), [(1, 1, 1), (4, 2, 8), (1, 8, 8)])
def test_there_is_a_rank_for_each_process_of_each_instance(instances: int, processes: int, ranks: int) -> None:
    order = ordered({"training": {"instances": instances, "processes": processes}})
    assert order["settings"]["training"]["ranks"] == ranks
    assert order["training"] == {"instance_type": "ml.g4dn.xlarge", "instances": instances, "processes": processes}


@pytest.mark.parametrize(
    ("phases", "plan"),
    [
        (["train"], False),
        (["serve"], True),
        (["dataset"], True),
        (["serve", "ingest"], True),
        (["train", "serve"], True),
    ],
)
def test_any_phases_may_be_asked_for_and_only_training_alone_needs_no_plan(phases: list[str], plan: bool) -> None:
    order = ordered({"phases": phases}, with_dataset("before"))
    assert order["phases"].pop("plan") is plan
    assert [phase for phase, asked in order["phases"].items() if asked] == sorted(
        phases, key=["ingest", "dataset", "train", "serve"].index
    )


def test_training_without_a_dataset_phase_takes_the_latest_dataset_or_the_one_named() -> None:
    models = with_dataset("before")
    models.put_json(contract.dataset_spec_key("long-ago"), {})
    assert ordered({"phases": ["train"]}, models)["dataset_run"] == "before"
    assert ordered({"phases": ["train"], "dataset_run": "long-ago"}, models)["dataset_run"] == "long-ago"
    assert ordered({"phases": ["dataset", "train"]}, models)["dataset_run"] == "tuesday"
    assert ordered({"phases": ["ingest"]})["dataset_run"] == "tuesday"


@pytest.mark.parametrize("asked", [["AAPL", "BRK.B"], "AAPL,BRK-B", "brk.b aapl"])
def test_the_universe_is_a_list_or_text(asked: Any) -> None:
    assert ordered({"universe": asked})["universe"] == ["AAPL", "BRK-B"]


@pytest.mark.parametrize("asked", ["sp500", ["sp500"], "sp500,MSFT", ["MSFT", "AAPL", "sp500"]])
def test_the_order_has_the_tickers_of_the_lists_that_the_universe_names(asked: Any) -> None:
    assert ordered({"universe": asked}, sp500=lambda: ("MSFT", "AAPL"))["universe"] == ["AAPL", "MSFT"]
    assert ordered({"universe": "sp100"})["universe"] == list(SP_100)


@pytest.mark.parametrize(
    "asked", [{"phases": ["train"]}, {"now": "2025-11-27T17:30:00-05:00", "only_in_sessions": True}]
)
def test_nothing_is_fetched_for_an_execution_that_plans_nothing(asked: Any) -> None:
    assert ordered({**asked, "universe": "sp500"}, with_dataset("before"))["universe"] == []


@pytest.mark.parametrize(
    ("now", "closed"),
    [
        ("2025-11-28T17:30:00-05:00", False),  # half day
        ("2025-11-27T17:30:00-05:00", True),  # Thanksgiving
        ("2025-12-06T00:30:00Z", False),  # Friday evening in New York
        ("2025-12-06T05:30:00Z", True),
    ],
)
def test_an_execution_for_sessions_only_is_closed_when_new_york_is(now: str, closed: bool) -> None:
    assert ordered({"now": now, "only_in_sessions": True})["closed"] is closed
    assert ordered({"now": now})["closed"] is False
    assert ordered({"now": now})["now"] == datetime.fromisoformat(now).astimezone(UTC).isoformat()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([], "the input must be a JSON object, such as {}"),
        ("{}", "the input must be a JSON object, such as {}"),
        (
            {"phase": ["train"]},
            "unknown input phase: allowed are phases, universe, run_id, dataset_run, now, settings,",
        ),
        ({"phases": []}, "input phases=[]: must name at least 1"),
        ({"phases": "train"}, "input phases='train': must be a list"),
        ({"phases": ["fit"]}, "input phases.0='fit': must be one of 'ingest', 'dataset', 'train', 'serve'"),
        ({"phases": [["train"]]}, "input phases.0=['train']: must be one of"),
        ({"universe": 3}, "input universe must be a list of tickers, or text: tickers by commas, dow30, sp1"),
        ({"universe": ["AAPL", None]}, "input universe must be a list of tickers"),
        ({"universe": " "}, "the universe is empty"),
        ({"universe": []}, "the universe is empty"),
        ({"universe": "tickers.txt/"}, "'tickers.txt/' is no ticker"),
        ({"run_id": "a/b"}, "input run_id='a/b': use up to 64 letters, digits"),
        ({"run_id": "a\n"}, "input run_id='a\\n': use up to 64 letters, digits"),
        ({"run_id": 3}, "input run_id=3: must be text"),
        ({"now": "2025-12-02"}, "now='2025-12-02' names no time zone"),
        ({"now": "noon"}, "now='noon' is not an ISO 8601 instant"),
        ({"now": "2026-12-02T12:00:00Z"}, "the calendar of this deployment ends on 2025-12-31"),
        (
            {"now": "2025-11-28T12:00:00Z", "settings": {"ingest": {"days": 1}}},
            "no trading session has closed in the asked days: raise settings.ingest.days",
        ),
        (
            {"now": "2025-11-28T17:59:59Z", "settings": {"ingest": {"days": 1}}},  # a second before the close
            "no trading session has closed in the asked days",
        ),
        ({"settings": []}, "input settings=[]: must be an object"),
        ({"settings": {"train": {}}}, "unknown setting train: allowed are ingest, dataset, training, gate, serving"),
        ({"settings": {"training": {"epochs": 0}}}, "setting training.epochs=0: must be at least 1"),
        ({"settings": {"training": {"ranks": 2}}}, "input settings.training.ranks follows from the instances: set"),
        ({"settings": {"serving": {"partitions": 3}}}, "serving.buckets must be at least serving.partitions"),
        ({"training": {"instances": 5}}, "input training.instances=5: must be at most 4"),
        ({"training": {"gpus": 5}}, "unknown input training.gpus: allowed are training.instance_type, training.inst"),
        (
            {"training": {"instance_type": "ml.g3.xlarge"}},
            "input training.instance_type='ml.g3.xlarge': must be one of",
        ),
        ({"only_in_sessions": "yes"}, "input only_in_sessions='yes': must be true or false"),
        ({"dataset_run": "r"}, "input dataset_run is for training without the dataset phase"),
        ({"phases": ["serve"], "dataset_run": "r"}, "input dataset_run is for training without the dataset phase"),
        ({"phases": ["train"]}, "there is no dataset to train on yet: start with phases ingest and dataset"),
        ({"phases": ["train"], "dataset_run": "r"}, "run r has no dataset: name another in dataset_run"),
        ({"phases": ["train"], "dataset_run": "../r"}, "input dataset_run='../r': use up to 64 letters"),
        ({"universe": [f"T{i:06d}" for i in range(30_000)]}, "30000 tickers are too many for one execution"),
    ],
)
def test_a_wrong_input_is_told_in_a_sentence(asked: Any, message: str) -> None:
    assert refused(asked).startswith(message)


def test_the_sample_input_of_the_console_is_taken() -> None:
    assert ordered({"Comment": "Insert your JSON here"}) == ordered({})


def test_phases_are_read_from_an_input_alone() -> None:
    assert asked_phases({}) == {"ingest", "dataset", "train", "serve"}
    assert asked_phases({"phases": ["train"], "whatever": 1}) == {"train"}


# --- names --------------------------------------------------------------------------------------


def arn(name: str) -> str:
    return EXECUTION.replace("tuesday", name)


def test_the_names_of_jobs_follow_from_the_execution_alone() -> None:
    assert job_prefix(EXECUTION) == job_prefix(EXECUTION) == "tuesday-" + job_prefix(EXECUTION)[-8:]
    assert len({job_prefix(arn(name)) for name in ("a", "b", "x" * 16 + "1", "x" * 16 + "2")}) == 4
    for name in ("-_-", "é" * 20, "a.b_c", "x" * 80, "_start", "end-of-16-chars-"):
        prefix = job_prefix(arn(name))
        assert len(prefix) <= 25
        assert set(prefix) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
        assert prefix[0].isalnum()


def test_the_name_of_a_cluster_is_a_pattern_that_step_functions_can_fill() -> None:
    assert CLUSTER_NAME.replace("{}", "p-1") == cluster_name("p-1") == "stockflow-p-1"


@pytest.mark.parametrize("name", ["tuesday", "a" * 36 + "_" + "b" * 36, "-x", "späť"])
def test_every_execution_has_a_run_id_that_its_phases_take(name: str) -> None:
    places = (contract.ENV_MARKET_BUCKET, contract.ENV_MODEL_BUCKET, contract.ENV_PREDICTIONS_BUCKET)
    run_id = default_run_id(arn(name))
    assert place_from_environ({**dict.fromkeys(places, "b"), contract.ENV_RUN_ID: run_id}).run_id == run_id
    assert ordered({}, execution=arn(name))["run_id"] == run_id
    assert (run_id == name) is (name == "tuesday")

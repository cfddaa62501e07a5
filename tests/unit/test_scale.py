"""`stockflow scale`: its cases and settings, what it asks of the state machine, its rows, tables and pictures."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from app import contract
from app.errors import SettingsError, TrainingError
from app.scaling import local
from app.scaling.cases import Case, Row, Times, efficiency, make_cases, read_times, speedup, to_json, whole_speedup
from app.scaling.run import run_scale
from app.scaling.sagemaker import execution_input, failure_reason, job_times, measure_on_sagemaker
from app.scaling.sweep import INSTANCES, Sweep, read_cases, read_instances
from app.scaling.tables import table_lines
from app.settings import Place, Settings
from tests.fakes import FakeS3, bucket, client_error

ARN = "arn:aws:states:us-east-1:1:execution:machine:{}"
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
PLACE = {
    contract.ENV_MARKET_BUCKET: "market",
    contract.ENV_MODEL_BUCKET: "models",
    contract.ENV_PREDICTIONS_BUCKET: "predictions",
}


def row(nodes: int, gpus: int, batch: int, s_per_epoch: float) -> Row:
    return Row(Case(nodes, gpus, batch), Times(s_per_epoch, 0.01, 1000 / s_per_epoch))


def metrics(*s_per_epoch: float, **more: float) -> dict[str, Any]:
    return {
        "history": [{"s_per_epoch": s, "s_per_step": s / 10, "sequences_per_s": 1000 / s} for s in s_per_epoch],
        **more,
    }


def sweep_of(out: Path, *cases: Case, **more: Any) -> Sweep:
    return Sweep("scale-1", cases, out, **more)


# --- cases and what follows from them -------------------------------------------------------------


def test_a_sweep_holds_every_combination_once_and_single_ranks_first() -> None:
    cases = read_cases("1,2,2", "1, 2", "32,64")
    assert len(cases) == 8
    assert cases[:2] == [Case(1, 1, 64), Case(1, 1, 32)]
    assert {case.ranks for case in cases} == {1, 2, 4}
    assert Case(2, 2, 64).effective_batch == 256


@pytest.mark.parametrize("wrong", [("0,1", "1", "32"), ("1", "", "32"), ("1", "1", "many")])
def test_numbers_that_are_none_are_refused(wrong: tuple[str, str, str]) -> None:
    with pytest.raises(SettingsError):
        read_cases(*wrong)


def test_speed_up_is_over_one_rank_with_the_same_batch_and_efficiency_is_its_share_for_each_rank() -> None:
    # the original's: 149.2 s on one node, 72.5 s on four, batch 32
    rows = [row(1, 1, 32, 149.2), row(4, 1, 32, 72.5), row(1, 1, 128, 37.5), row(4, 1, 64, 40.0)]
    assert speedup(rows[1], rows) == pytest.approx(2.06, abs=0.005)
    assert efficiency(rows[1], rows) == pytest.approx(0.51, abs=0.005)
    assert speedup(rows[3], rows) is None  # nothing is known of one rank with batch 64
    assert whole_speedup(rows[2], rows) == pytest.approx(149.2 / 37.5)


def test_times_leave_out_the_epoch_that_compiled() -> None:
    assert read_times(metrics(90.0, 10.0, 12.0, 11.0)).s_per_epoch == 11.0
    assert read_times(metrics(90.0)).s_per_epoch == 90.0
    found = read_times(metrics(90.0, 10.0, startup_s=7.5, train_s=20.0))
    assert (found.startup_s, found.train_s, found.s_per_step) == (7.5, 20.0, 1.0)
    with pytest.raises(TrainingError, match="history"):
        read_times({})


# --- settings of a case ---------------------------------------------------------------------------


def test_each_case_of_each_sweep_trains_a_model_of_its_own(tmp_path: Path) -> None:
    one, other = Case(1, 2, 32), Case(2, 1, 32)
    sweep = sweep_of(tmp_path, one, other, flags=("training.lstm_units=8",))
    found = [sweep.settings(case).training for case in (one, other)]
    assert [f.ranks for f in found] == [2, 2]
    assert {f.lstm_units for f in found} == {8}
    assert len({f.seed for f in found} | {replace(sweep, name="scale-2").seed(one)}) == 3


def test_an_execution_is_asked_to_train_and_to_promote_nothing(tmp_path: Path) -> None:
    case = Case(4, 2, 64)
    sweep = sweep_of(tmp_path, case, flags=("training.dropout=0.1",), epochs=2, dataset_run="day-1")
    asked = execution_input(sweep, case)
    assert asked["phases"] == ["train"]
    assert asked["dataset_run"] == "day-1"
    assert asked["training"] == {"instance_type": "ml.g4dn.12xlarge", "instances": 4, "processes": 2}
    assert asked["settings"]["training"] == {"batch": 64, "epochs": 2, "dropout": 0.1, "seed": sweep.seed(case)}
    assert asked["settings"]["gate"] == {"min_skill": 1.0}


def test_an_instance_type_is_named_for_every_number_of_gpus() -> None:
    assert read_instances(["2=ml.g5.12xlarge"], [Case(1, 2, 32)]) == {**INSTANCES, 2: "ml.g5.12xlarge"}
    with pytest.raises(SettingsError, match="8=TYPE"):
        read_instances([], [Case(1, 8, 32)])
    with pytest.raises(SettingsError, match="GPUS=TYPE"):
        read_instances(["g5"], [])


# --- SageMaker ------------------------------------------------------------------------------------


class FakeAws:
    """Step Functions, SageMaker and S3. Executions named in `fails` fail; the others end when asked the second time."""

    def __init__(self, fails: Mapping[str, str] | None = None) -> None:
        self.s3 = FakeS3()
        self.asked: dict[str, dict[str, Any]] = {}
        self.running: list[str] = []
        self.most_running = 0
        self.stopped: list[str] = []
        self._fails = fails or {}
        self._seen: set[str] = set()

    def client(self, service: str, **options: Any) -> Any:
        return self.s3 if service == "s3" else self

    def start_execution(self, **call: Any) -> dict[str, Any]:
        arn = ARN.format(call["name"])
        self.asked[call["name"]] = json.loads(call["input"])
        self.running.append(arn)
        self.most_running = max(self.most_running, len(self.running))
        return {"executionArn": arn}

    def describe_execution(self, **call: Any) -> dict[str, Any]:
        arn = call["executionArn"]
        name = arn.rpartition(":")[2]
        if arn not in self._seen:
            self._seen.add(arn)
            return {"status": "RUNNING"}
        self.running.remove(arn)
        if name in self._fails:
            return {"status": "FAILED", "error": "States.TaskFailed", "cause": self._fails[name]}
        models = bucket(self.s3)
        models.put_json(contract.candidate_key(name), {"model_id": f"model-of-{name}"})
        models.put_json(
            contract.model_key(f"model-of-{name}", contract.MODEL_METRICS),
            metrics(90.0, 10.0, 10.0, startup_s=20.0, train_s=30.0),
        )
        return {"status": "SUCCEEDED"}

    def stop_execution(self, **call: Any) -> None:
        self.stopped.append(call["executionArn"])

    def list_training_jobs(self, **call: Any) -> dict[str, Any]:
        return {"TrainingJobSummaries": [{"TrainingJobName": f"{call['NameContains']}x"}]}

    def describe_training_job(self, **call: Any) -> dict[str, Any]:
        return described_job(120.0)


def described_job(training_s: float) -> dict[str, Any]:
    """A job that waited 100 s, then trained so long."""
    training = BEGUN + timedelta(seconds=100)
    ended = training + timedelta(seconds=training_s)
    return {
        "CreationTime": BEGUN,
        "TrainingEndTime": ended + timedelta(seconds=5),
        "SecondaryStatusTransitions": [
            {"Status": "Starting", "StartTime": BEGUN, "EndTime": training},
            {"Status": "Training", "StartTime": training, "EndTime": ended},
            {"Status": "Uploading", "StartTime": ended},
        ],
        "Environment": {contract.ENV_MODEL_BUCKET: "models"},
    }


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeAws]:
    def make(**options: Any) -> FakeAws:
        fake = FakeAws(**options)
        monkeypatch.setattr(boto3, "client", fake.client)
        return fake

    return make


def test_jobs_become_rows_with_waiting_start_up_and_sleep_apart(aws: Callable[..., FakeAws], tmp_path: Path) -> None:
    fake = aws()
    cases = make_cases([1, 2], [1], [32])
    sweep = sweep_of(tmp_path, *cases, machine="m", at_once=2)
    rows = list(measure_on_sagemaker(sweep, {}, lambda line: None, every_s=0))
    assert [one.case for one in rows] == cases
    assert fake.most_running == 2
    assert not fake.stopped
    # 120 s of training: 20 to the first step, 30 of steps, 30 asleep, 40 of export and so on
    assert rows[0].times == Times(10.0, 1.0, 100.0, 100.0, 20.0, 30.0, 40.0, 30.0)


def test_a_job_that_ends_at_once_did_not_sleep() -> None:
    times = Times(10.0, 1.0, 100.0, startup_s=20.0, train_s=30.0)
    assert (job_times(times, described_job(60.0)).rest_s, job_times(times, described_job(60.0)).sleep_s) == (10.0, 0.0)


def test_a_case_that_fails_is_a_row_with_its_reason_and_the_others_go_on(
    aws: Callable[..., FakeAws], tmp_path: Path
) -> None:
    cause = json.dumps({"TrainingJobName": "x", "FailureReason": "AlgorithmError: the loss is nan"})
    aws(fails={"scale-1-1x1-b32": cause})
    sweep = sweep_of(tmp_path, *make_cases([1, 2], [1], [32]), machine="m")
    rows = list(measure_on_sagemaker(sweep, {}, lambda line: None, every_s=0))
    assert [bool(one.times) for one in rows] == [False, True]
    assert rows[0].error == "States.TaskFailed: AlgorithmError: the loss is nan"
    assert to_json(rows[1], rows)["speedup"] is None


@pytest.mark.parametrize(("refusals", "ends"), [(11, True), (12, False)])
def test_an_execution_of_which_aws_tells_nothing_for_a_while_is_waited_for(
    aws: Callable[..., FakeAws], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refusals: int, ends: bool
) -> None:
    fake = aws()
    describe, asked = fake.describe_execution, Counter[str]()

    def refuse(**call: Any) -> Any:
        asked[call["executionArn"]] += 1
        if call["executionArn"] == ARN.format("scale-1-1x1-b32") and asked[call["executionArn"]] <= refusals:
            raise client_error("ThrottlingException", "DescribeExecution")
        return describe(**call)

    monkeypatch.setattr(fake, "describe_execution", refuse)
    sweep = sweep_of(tmp_path, *make_cases([1, 2], [1], [32]), machine="m")
    rows = list(measure_on_sagemaker(sweep, {}, lambda line: None, every_s=0))
    assert [bool(one.times) for one in rows] == [ends, True]
    assert rows[0].error.startswith("" if ends else "AWS refuses: An error occurred (ThrottlingException)")
    assert fake.stopped == ([] if ends else [ARN.format("scale-1-1x1-b32")])


def test_a_case_that_cannot_be_started_is_a_row_once_another_one_was(
    aws: Callable[..., FakeAws], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = aws()
    start = fake.start_execution

    def refuse(**call: Any) -> Any:
        if call["name"] == "scale-1-2x1-b32":
            raise client_error("ExecutionLimitExceeded", "StartExecution")
        return start(**call)

    monkeypatch.setattr(fake, "start_execution", refuse)
    sweep = sweep_of(tmp_path, *make_cases([1, 2, 3], [1], [32]), machine="m")
    rows = list(measure_on_sagemaker(sweep, {}, lambda line: None, every_s=0))
    assert {one.case.name: bool(one.times) for one in rows} == {"1x1-b32": True, "2x1-b32": False, "3x1-b32": True}
    assert "ExecutionLimitExceeded" in next(one.error for one in rows if one.error)


def test_what_still_runs_is_stopped_when_the_sweep_is_left(aws: Callable[..., FakeAws], tmp_path: Path) -> None:
    fake = aws()
    sweep = sweep_of(tmp_path, *make_cases([1, 2, 3], [1], [32]), machine="m", at_once=3)
    measured = measure_on_sagemaker(sweep, {}, lambda line: None, every_s=0)
    next(measured)
    measured.close()
    assert fake.stopped == fake.running
    assert len(fake.stopped) == 2


@pytest.mark.parametrize(
    ("cause", "said"),
    [("plain\nwords", "E: plain words"), ('{"errorMessage": "no"}', "E: no"), ("[1]", "E: [1]"), ("", "E")],
)
def test_a_reason_is_one_line(cause: str, said: str) -> None:
    assert failure_reason({"status": "FAILED", "error": "E", "cause": cause}) == said


def test_a_machine_that_refuses_ends_the_sweep_in_one_line(
    aws: Callable[..., FakeAws], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = aws()

    def refuse(**call: Any) -> Any:
        raise client_error("AccessDeniedException", "StartExecution")

    monkeypatch.setattr(fake, "start_execution", refuse)
    sweep = sweep_of(tmp_path, Case(1, 1, 32), machine="m")
    with pytest.raises(TrainingError, match="AccessDenied"):
        run_scale(sweep, "sagemaker", {}, lambda line: None)


# --- on this machine ------------------------------------------------------------------------------


class FakeTraining:
    """In place of mpirun: two ranks halve an epoch; a batch of 64 fails."""

    def __init__(self) -> None:
        self.trained: list[Settings] = []
        self.places: list[Place] = []

    def __call__(self, place: Place, settings: Settings, environ: Mapping[str, str], report: Any) -> dict[str, Any]:
        self.trained.append(settings)
        self.places.append(place)
        if settings.training.batch == 64:
            raise TrainingError("rank 1: no memory | at all")
        ranks = settings.training.ranks
        return {"metrics": metrics(50.0, 10.0 / ranks, startup_s=0.0, train_s=0.0)}


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch, s3: FakeS3) -> FakeTraining:
    fake = FakeTraining()
    monkeypatch.setattr(local, "run_training", fake)
    bucket(s3).put_json(contract.LATEST_DATASET_KEY, {"run_id": "day-1"})
    return fake


def test_ranks_on_this_machine_are_nodes_times_gpus_and_the_same_ranks_are_measured_once(
    training: FakeTraining, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    said: list[str] = []
    run_scale(sweep_of(tmp_path, *make_cases([1, 2], [1, 2], [32])), "local", PLACE, said.append)
    assert [settings.training.ranks for settings in training.trained] == [1, 2, 4]
    assert {place.dataset_run for place in training.places} == {"day-1"}
    stored = json.loads((tmp_path / "scale.json").read_text())
    by_shape = {(one["nodes"], one["gpus"]): one for one in stored["rows"]}
    assert by_shape[1, 2]["speedup"] == by_shape[2, 1]["speedup"] == 2.0
    assert by_shape[2, 1]["note"] == "the same ranks as 1 x 2: measured once"
    assert by_shape[2, 2]["note"] == "oversubscribed: 4 ranks on 2 cores"
    assert by_shape[2, 2]["efficiency"] == 1.0
    names = {f"scale{part}" for part in (".json", ".md")}
    names |= {f"scale_{what}.{kind}" for what in ("speedup", "s_per_step", "s_per_epoch") for kind in ("png", "svg")}
    assert {file.name for file in tmp_path.iterdir()} == names
    assert all((tmp_path / name).stat().st_size for name in names)


def test_a_failed_case_ends_the_sweep_with_an_error_when_all_others_are_done(
    training: FakeTraining, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"1 of 2 cases failed: 1x1-b64; .*scale.md"):
        run_scale(sweep_of(tmp_path, Case(1, 1, 64), Case(1, 1, 32)), "local", PLACE, lambda line: None)
    assert len(training.trained) == 2
    table = (tmp_path / "scale.md").read_text()
    assert "FAILED: rank 1: no memory / at all" in table


def test_settings_out_of_bounds_are_refused_before_anything_is_trained(training: FakeTraining, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"training\.batch"):
        run_scale(sweep_of(tmp_path, Case(1, 1, 32), Case(1, 1, 99_999)), "local", PLACE, lambda line: None)
    assert not training.trained


def test_without_matplotlib_the_tables_are_written_and_a_line_says_what_to_install(
    training: FakeTraining, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "app.scaling.plots", raising=False)
    said: list[str] = []
    run_scale(sweep_of(tmp_path, Case(1, 1, 32)), "local", PLACE, said.append)
    assert {file.name for file in tmp_path.iterdir()} == {"scale.json", "scale.md"}
    assert sum("pip install matplotlib" in line for line in said) == 1


def test_every_line_of_the_table_has_the_same_columns() -> None:
    rows = [row(1, 1, 32, 149.2), row(2, 1, 32, 107.6), Row(Case(3, 1, 32), error="gone")]
    lines = list(table_lines(rows))
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert "| 2 x 1 | 32 | 64 | 107.60 | 0.0100 | 9 | 1.39 | 69% |" in lines[3]

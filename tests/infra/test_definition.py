"""The state machine: its form, and the ways through it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from moto.stepfunctions.parser.asl.static_analyser.static_analyser import StaticAnalyser

from tests.infra.execution import Execution
from tests.infra.service_models import faults, request
from tests.infra.services import EARLIER_SKILL, NOW, ONE_SHARD, Services, run
from tests.infra.synthesised import Synthesised
from tests.infra.templates import resources


def sequence(done: Execution) -> str:
    return " ".join(task.state for task in done.tasks)


# --- form ---------------------------------------------------------------------------------------


def test_an_independent_parser_takes_the_definition(any_app: Synthesised) -> None:
    text = json.dumps(any_app.definition)
    StaticAnalyser().analyse(text)
    assert len(text) < 200_000  # of 1 MB


def test_every_name_of_a_state_exists_and_every_state_can_be_reached(any_app: Synthesised) -> None:
    for machine in any_app.machines():
        named = {machine["StartAt"]}
        for state in machine["States"].values():
            rules = [state, *state.get("Choices", ()), *state.get("Catch", ())]
            named |= {rule[key] for rule in rules for key in ("Next", "Default") if key in rule}
        assert named == machine["States"].keys()
        assert all(len(name) <= 80 for name in named)


def test_every_task_has_a_limit_and_tries_again_with_backoff_and_full_jitter(any_app: Synthesised) -> None:
    for name, state in any_app.states("Task").items():
        assert 0 < state["TimeoutSeconds"] < any_app.definition["TimeoutSeconds"], name
        assert state["Retry"], name
        for rule in state["Retry"]:
            assert rule["JitterStrategy"] == "FULL", name
            assert rule["BackoffRate"] > 1, name
            assert 0 < rule["IntervalSeconds"] < rule["MaxDelaySeconds"], name
            assert 1 <= rule["MaxAttempts"] <= 5, name


def test_an_error_is_tried_again_by_one_rule_only_and_all_the_others_by_the_last(any_app: Synthesised) -> None:
    for state in any_app.states("Task").values():
        errors = [error for rule in state["Retry"] for error in rule["ErrorEquals"]]
        assert len(set(errors)) == len(errors)
        assert all(rule["ErrorEquals"] == ["States.ALL"] for rule in state["Retry"] if "States.ALL" in str(rule))
        assert "States.ALL" not in errors or state["Retry"][-1]["ErrorEquals"] == ["States.ALL"]


def test_a_job_that_failed_is_not_submitted_again(any_app: Synthesised) -> None:
    """Batch has tried it as often as it may be tried; what is tried here is the call of the service."""
    for name, state in any_app.states("Task").items():
        if state["Resource"].endswith(".sync"):
            errors = {error for rule in state["Retry"] for error in rule["ErrorEquals"]}
            assert not errors & {"States.ALL", "States.TaskFailed", "States.Timeout"}, name


def test_every_result_has_a_place_or_is_dropped_by_a_null(any_app: Synthesised) -> None:
    """Without one it would take the place of the order that all later states read."""
    for name, state in any_app.states("Task", "Parallel", "Pass").items():
        placed = state.get("ResultPath", "$") != "$"
        assert placed or "OutputPath" in state, name
    dropped = {name for name, state in any_app.states("Task").items() if state.get("ResultPath", "$") is None}
    jobs = {"IngestShard", "IngestShards", "CompactBars", "BuildDataset", "TrainModel"}
    assert dropped >= {*jobs, "StreamPredictions", "FeedTicks"}


def test_the_tasks_in_a_row_fit_into_the_limit_of_an_execution(default_app: Synthesised) -> None:
    side_by_side = {"FeedTicks", "IngestShard"}
    limits = {name: state["TimeoutSeconds"] for name, state in default_app.states("Task").items()}
    assert sum(limit for name, limit in limits.items() if name not in side_by_side) < 24 * 3600


# --- ways through -------------------------------------------------------------------------------

INGEST = "PlanShards ScaleFleet IngestShards CompactBars ReleaseFleet CheckCoverage"
TRAIN = "TrainModel GateModel PromoteModel"
SERVE = "CreateCluster StreamPredictions FeedTicks VerifyPredictions ReleaseCluster"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, f"{INGEST} BuildDataset {TRAIN} {SERVE}"),
        ({"phases": ["ingest"]}, INGEST),
        ({"phases": ["dataset"]}, "PlanShards BuildDataset"),
        ({"phases": ["train"]}, TRAIN),
        ({"phases": ["serve"]}, f"PlanShards {SERVE}"),
        ({"phases": ["serve", "ingest"]}, f"{INGEST} {SERVE}"),
        ({"phases": ["ingest", "dataset", "train"]}, f"{INGEST} BuildDataset {TRAIN}"),
        ({**ONE_SHARD, "phases": ["ingest"]}, INGEST.replace("IngestShards", "IngestShard")),
    ],
)
def test_each_phase_runs_when_it_is_asked_for_and_in_order(
    default_app: Synthesised, asked: dict[str, Any], expected: str
) -> None:
    done = run(default_app, asked)
    assert sequence(done) == f"ValidateInput {expected}"
    assert (done.status, done.visited[-1]) == ("SUCCEEDED", "Succeeded")


def test_a_fleet_that_batch_manages_is_not_scaled(managed_app: Synthesised) -> None:
    assert managed_app.states().keys().isdisjoint({"ScaleFleet", "ReleaseFleet"})
    expected = f"ValidateInput PlanShards IngestShards CompactBars CheckCoverage BuildDataset {TRAIN} {SERVE}"
    assert sequence(run(managed_app, {})) == expected


def test_a_cluster_that_stays_is_neither_created_nor_ended(always_on_app: Synthesised) -> None:
    assert always_on_app.states().keys().isdisjoint({"CreateCluster", "ReleaseCluster"})
    done = run(always_on_app, {"phases": ["serve"]})
    assert sequence(done) == "ValidateInput PlanShards StreamPredictions FeedTicks VerifyPredictions"
    (cluster,) = (task.parameters["ClusterId"] for task in done.tasks if task.state == "StreamPredictions")
    (name,) = resources(always_on_app.compute, "AWS::EMR::Cluster")
    assert cluster == always_on_app.compute_stack.value({"Ref": name})


def test_nothing_runs_when_the_exchange_is_closed(any_app: Synthesised) -> None:
    done = run(any_app, {"only_in_sessions": True, "now": "2026-11-26T22:00:00+00:00"})  # Thanksgiving
    assert (sequence(done), done.status) == ("ValidateInput", "SUCCEEDED")
    open_day = run(any_app, {"only_in_sessions": True, "phases": ["dataset"]})
    assert sequence(open_day) == "ValidateInput PlanShards BuildDataset"


def test_a_model_that_does_not_pass_the_gate_is_not_promoted_and_the_old_one_serves(any_app: Synthesised) -> None:
    for skill in (-0.2, EARLIER_SKILL / 2):  # worse than persistence; better, but worse than the old one
        done = run(any_app, {}, skill=skill)
        assert done.status == "SUCCEEDED"
        assert "GateModel CreateCluster" in sequence(done) or "GateModel StreamPredictions" in sequence(done)


def test_with_nothing_to_serve_the_run_ends_at_the_gate_with_its_reason(any_app: Synthesised) -> None:
    done = Services(any_app, skill=-0.2).run({})
    assert (done.status, done.error) == ("FAILED", "NothingToServe")
    assert sequence(done).endswith("TrainModel GateModel Release Notify")
    assert "-0.2" in done.cause
    assert Services(any_app, skill=-0.2).run({"phases": ["ingest", "dataset", "train"]}).status == "SUCCEEDED"


def test_what_the_states_found_out_is_in_the_output(default_app: Synthesised) -> None:
    output = run(default_app, {}).output
    assert output["plan"] == {"shards": 8, "instances": 1, "tickers": 30, "sessions": 22}
    assert output["coverage"] == {"requested": 30, "coverage": 1.0, "rows": 30 * 390}
    assert (output["gate"]["promote"], output["gate"]["model_id"]) == (True, "model-1")
    assert output["served"] == {"predictions": 780, "objects": 1, "day": NOW.date().isoformat(), "model_id": "model-1"}


# --- failures -----------------------------------------------------------------------------------

ALL_TASKS = f"{INGEST} BuildDataset {TRAIN} {SERVE}".split()


@pytest.mark.parametrize("broken", ALL_TASKS)
def test_whatever_fails_is_released_told_and_the_failure_of_the_execution(
    default_app: Synthesised, broken: str
) -> None:
    failure = ("States.TaskFailed", '{"errorMessage": "it\'s {broken} \\\\ here"}')
    done = run(default_app, {}, failing={broken: failure})
    assert sequence(done).endswith(f"{broken} Release Notify")
    assert (done.status, done.error, done.cause) == ("FAILED", *failure)
    release, notify = done.tasks[-2:]
    assert release.parameters["Payload"].keys() == {"execution", "machine"}
    assert json.loads(notify.parameters["Message"].partition("\n")[2]) == {"Error": failure[0], "Cause": failure[1]}
    assert [faults(request(task.resource, task.parameters)) for task in (release, notify)] == [[], []]


@pytest.mark.parametrize("also", ["Release", "Notify"])
def test_the_first_failure_is_told_even_when_releasing_or_telling_fails(default_app: Synthesised, also: str) -> None:
    failing = {"TrainModel": ("States.Timeout", ""), also: ("Lambda.Unknown", "worse")}
    done = run(default_app, {}, failing=failing)
    assert sequence(done).endswith("TrainModel Release Notify")
    assert (done.status, done.error) == ("FAILED", "States.Timeout")


def test_a_wrong_input_fails_in_the_first_state_and_leaves_nothing_to_release(default_app: Synthesised) -> None:
    failure = ("SettingsError", '{"errorMessage": "input phases[0]=\'fit\': name one of ..."}')
    done = run(default_app, {}, failing={"ValidateInput": failure})
    assert (done.visited, done.error, done.cause) == (["ValidateInput"], *failure)

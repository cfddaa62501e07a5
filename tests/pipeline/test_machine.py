"""The deployed state machine with real tasks: that it goes its way, and what is left when something goes wrong."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

import pytest

from app import contract
from app.ingest.plan import read_plan
from app.training.checkpoint import read_checkpoint
from app.workflow.names import job_prefix
from embedded.execution import Execution
from tests.pipeline.grants import check_grants
from tests.pipeline.stack import Stack, until


def assert_whole(stack: Stack, run_id: str) -> None:
    """A prediction for each tick, and none twice."""
    held = stack.predictions(run_id).to_pandas()
    assert not held.duplicated(["ticker", "as_of", "horizon_min"]).any()
    assert len(held) == stack.ticks(run_id) > 1000


def failure(execution: Execution) -> tuple[str, str, str]:
    """State, error and cause."""
    state = execution.failed_state()
    assert state is not None
    return state.name, execution.error, execution.cause


def test_an_execution_goes_all_the_way(stack: Stack, first_calls: tuple[str, dict[str, Any]]) -> None:
    run_id, calls = first_calls
    assert_whole(stack, run_id)
    check_grants(calls)
    stack.assert_nothing_is_left()


def test_a_second_execution_fetches_nothing_that_is_held(stack: Stack, first_run: str) -> None:
    execution = stack.run("ingest")
    assert execution.status == "SUCCEEDED"
    first, second = (
        stack.bucket("market").get_json(contract.coverage_key(run_id)) for run_id in (first_run, execution.name)
    )
    assert (first["held"], second["held"]) == (0, first["rows"])
    assert second["requests"] == 0
    assert second["statuses"] == first["statuses"]


def test_a_day_s_bars_are_one_object_and_no_journal_is_left(stack: Stack, first_run: str) -> None:
    market = stack.bucket("market")
    plan = read_plan(first_run, market)
    days = [session.day for session in plan.sessions if any(market.objects(contract.bars_day_prefix(session.day)))]
    assert len(days) == 5
    bars, answers = market.keys(contract.BARS_PREFIX), market.keys(contract.ANSWERS_PREFIX)
    parts = [contract.part_of(key) for key in bars]
    assert all(contract.is_compact(part) for part in parts)
    assert bars == [contract.bars_key(day, part) for day, part in zip(days, parts, strict=True)]
    assert answers == [contract.answers_key(day, part) for day, part in zip(days, parts, strict=True)]
    assert not [key for shard in plan.shards for key in market.keys(contract.journal_prefix(first_run, shard.name))]


def test_a_killed_shard_fails_the_execution_and_the_fleet_is_released(stack: Stack, first_run: str) -> None:
    arn = stack.start("ingest", universe=["SIM003", "SIM004"])
    stack.kill("stockflow", "ingest", environ={"AWS_BATCH_JOB_ARRAY_INDEX": "1"})
    state, error, cause = failure(stack.wait(arn))
    assert (state, error) == ("IngestShards", "States.TaskFailed")
    assert json.loads(cause)["ArrayProperties"]["StatusSummary"]["FAILED"] == 1
    stack.assert_nothing_is_left()
    names = [run.name for run in stack.read(arn).states]
    assert names[-3:] == ["Release", "Notify", "Failed"]


def test_a_killed_rank_fails_the_training_and_the_next_one_goes_on(stack: Stack, first_run: str) -> None:
    settings = {"training": {"epochs": 3, "seed": 8}}
    arn = stack.start("train", settings=settings)
    until(lambda: checkpoints(stack))
    stack.kill("train.py", environ={"OMPI_COMM_WORLD_RANK": "1"})
    state, error, cause = failure(stack.wait(arn))
    assert (state, error) == ("TrainModel", "States.TaskFailed")
    assert "signal 9" in json.loads(cause)["FailureReason"]
    stack.assert_nothing_is_left()
    again = stack.run("train", settings=settings)
    assert again.status == "SUCCEEDED"


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_a_job_that_is_started_again_after_an_interruption_repeats_no_epoch(stack: Stack, first_run: str) -> None:
    """As managed Spot does it: the same request, the same run."""
    arn = stack.start("train", settings={"training": {"epochs": 4, "seed": 9}})
    until(lambda: checkpoints(stack))
    stack.kill("train.py", environ={"OMPI_COMM_WORLD_RANK": "1"})
    failure(stack.wait(arn))
    done = read_checkpoint(stack.bucket("model"), checkpoints(stack)[-1]).epoch
    assert 0 < done < 4
    sagemaker, logs = stack.local.connect("sagemaker"), stack.local.connect("logs")
    (job,) = sagemaker.list_training_jobs(NameContains=f"{job_prefix(arn)}-")["TrainingJobSummaries"]
    interrupted = sagemaker.describe_training_job(TrainingJobName=job["TrainingJobName"])
    names = ["RoleArn", "AlgorithmSpecification", "HyperParameters", "Environment", "InputDataConfig"]
    names += ["OutputDataConfig", "ResourceConfig", "StoppingCondition"]
    again = "started-again"  # by its execution's mark it would be released with that
    sagemaker.create_training_job(TrainingJobName=again, **{name: interrupted[name] for name in names})
    described = partial(sagemaker.describe_training_job, TrainingJobName=again)
    until(lambda: described()["TrainingJobStatus"] != "InProgress")
    assert described()["TrainingJobStatus"] == "Completed"
    place = {"logGroupName": "/aws/sagemaker/TrainingJobs"}
    (stream,) = logs.describe_log_streams(**place, logStreamNamePrefix=f"{again}/")["logStreams"]
    events = logs.get_log_events(**place, logStreamName=stream["logStreamName"], startFromHead=True)["events"]
    told = [int(found[1]) for event in events if (found := re.search(r"\bepoch=(\d+)", event["message"]))]
    assert told == list(range(done + 1, 5))
    models = stack.bucket("model")
    model_id = models.get_json(contract.candidate_key(arn.rpartition(":")[2]))["model_id"]
    assert len(models.get_json(contract.model_key(model_id, contract.MODEL_METRICS))["history"]) == 4


def checkpoints(stack: Stack) -> list[str]:
    """Checkpoints of models that are not complete."""
    models = stack.bucket("model")
    keys = list(models.keys(contract.MODELS_PREFIX))
    complete = {key.split("/")[1] for key in keys if key.endswith(contract.MODEL_ONNX)}
    return [key for key in keys if "/checkpoints/" in key and key.split("/")[1] not in complete]


def test_a_killed_driver_is_started_again_and_nothing_is_lost_or_doubled(stack: Stack, first_run: str) -> None:
    arn = stack.start("serve", settings={"serving": {"speed": 2000}})
    wait_for_predictions(stack, arn)
    stack.kill("org.apache.spark.deploy.SparkSubmit")
    execution = stack.wait(arn)
    assert execution.status == "SUCCEEDED", execution.cause
    assert_whole(stack, execution.name)
    stack.assert_nothing_is_left()


@pytest.mark.chaos
@pytest.mark.parametrize("service", ["s3", "logs", "lambda"])
def test_a_service_that_fails_under_the_stream_costs_no_prediction(stack: Stack, first_run: str, service: str) -> None:
    arn = stack.start("serve", settings={"serving": {"speed": 2000}})
    wait_for_predictions(stack, arn)
    stack.fail(service, 5.0)
    execution = stack.wait(arn)
    assert execution.status == "SUCCEEDED", execution.cause
    assert_whole(stack, execution.name)


def wait_for_predictions(stack: Stack, arn: str) -> None:
    run_id, predictions = arn.rpartition(":")[2], stack.bucket("predictions")
    until(lambda: any(contract.predictions_run(key) == run_id for key in predictions.keys(contract.PREDICTIONS_PREFIX)))


def test_a_killed_lambda_takes_the_catch(stack: Stack, first_run: str) -> None:
    arn = stack.start("ingest")
    stack.kill("function_runtime.py", environ={"_HANDLER": "plan_shards.handler"})
    state, error, cause = failure(stack.wait(arn))
    assert (state, error) == ("PlanShards", "Runtime.ExitError")
    assert "signal: killed" in cause
    stack.assert_nothing_is_left()


def test_an_s3_that_fails_for_a_while_is_waited_for(stack: Stack, first_run: str) -> None:
    arn = stack.start("ingest", "dataset", universe=["SIM001", "SIM002"], settings={"ingest": {"refetch": True}})
    stack.wait_for_state(arn, "IngestShards")
    stack.fail("s3", 5.0)
    execution = stack.wait(arn)
    assert execution.status == "SUCCEEDED", execution.cause
    coverage = stack.bucket("market").get_json(contract.coverage_key(execution.name))
    assert coverage["statuses"]["complete"] == 2
    stack.assert_nothing_is_left()


def test_coverage_under_the_threshold_ends_it_before_the_dataset(stack: Stack, first_run: str) -> None:
    older = 14  # days that nothing is held of, so that they are asked for
    impatient = {"ingest": {"timeout_s": 0.005, "attempts": 2, "min_coverage": 0.5, "days": older}}
    execution = stack.run("ingest", "dataset", settings=impatient, universe=["SIM002", "SIM003"])
    state, error, cause = failure(execution)
    assert (state, error) == ("CheckCoverage", "YahooError")
    assert "2 of 2 tickers have no complete answer" in cause
    assert "BuildDataset" not in [run.name for run in execution.states]
    stack.assert_nothing_is_left()


def test_a_model_that_loses_is_not_promoted_and_the_old_one_serves(stack: Stack, first_run: str) -> None:
    models = stack.bucket("model")
    current = models.get_json(contract.CURRENT_MODEL_KEY)
    settings = {"training": {"seed": 9}, "gate": {"min_skill": 1}}
    execution = stack.run("train", "serve", settings=settings)
    assert execution.status == "SUCCEEDED"
    names = [run.name for run in execution.states]
    assert "GateModel" in names
    assert "PromoteModel" not in names
    assert models.get_json(contract.CURRENT_MODEL_KEY) == current
    assert set(stack.predictions(execution.name)["model_id"].to_pylist()) == {current["model_id"]}
    assert_whole(stack, execution.name)


@pytest.mark.parametrize(
    ("phase", "state", "word"),
    [
        ("ingest", "IngestShards", "stockflow"),
        ("dataset", "BuildDataset", "stockflow"),
        ("train", "TrainModel", "train.py"),
        ("train", "GateModel", "function_runtime.py"),
        ("serve", "StreamPredictions", "SparkSubmit"),
    ],
)
def test_an_abort_releases_all_that_the_execution_holds(
    stack: Stack, first_run: str, phase: str, state: str, word: str
) -> None:
    more: dict[str, Any] = {"universe": ["SIM001", "SIM004"]} if phase == "ingest" else {}
    phases = ("ingest", "dataset") if phase == "dataset" else (phase,)
    arn = stack.start(*phases, settings={"serving": {"speed": 60}}, **more)
    stack.wait_for_state(arn, state)
    until(lambda: stack.tasks(word))
    stack.local.connect("stepfunctions").stop_execution(executionArn=arn)
    assert stack.read(arn).status == "ABORTED"
    assert stack.wait(arn).status == "ABORTED"
    stack.assert_nothing_is_left()

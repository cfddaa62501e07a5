"""What the tasks of an execution ask the services for, held against the services' own models and their programs."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from app import contract
from app.cli import cli
from app.settings import load, place_from_environ
from app.workflow.names import job_prefix
from infra.network import MANAGED_BY_EMR
from tests.infra.service_models import faults, request
from tests.infra.services import INPUTS, LARGEST, ONE_SHARD, Services, batch_environment, run, tasks
from tests.infra.synthesised import Synthesised


@pytest.mark.parametrize("asked", INPUTS.values(), ids=INPUTS)
def test_the_services_models_take_what_every_task_asks_for(any_app: Synthesised, asked: dict[str, Any]) -> None:
    for state, task in tasks(any_app, asked).items():
        assert faults(request(task.resource, task.parameters)) == [], state


def test_every_task_was_held_against_its_service(any_app: Synthesised) -> None:
    """By the inputs above, and by the failures."""
    seen = {state for asked in INPUTS.values() for state in tasks(any_app, asked)}
    assert seen | {"Release", "Notify"} == any_app.states("Task").keys()


def test_what_is_carried_and_passed_on_stays_far_below_its_limits(any_app: Synthesised) -> None:
    done = run(any_app, LARGEST)
    assert done.carried_bytes < 64 * 1024  # of 256 KiB
    asked = {task.state: task.parameters for task in done.tasks}
    for job in ("IngestShards", "CompactBars", "BuildDataset", "FeedTicks"):
        assert len(json.dumps(asked[job]["ContainerOverrides"])) < 4096  # of 8,192, in which Batch puts some of its own
        assert 2 <= asked["IngestShards"]["ArrayProperties"]["Size"] <= 10_000
    step = asked["StreamPredictions"]["Step"]["HadoopJarStep"]["Args"]
    assert sum(len(word) + 1 for word in step) < 5_000  # of 10,280


def test_a_message_s_subject_is_one_that_mail_takes(default_app: Synthesised) -> None:
    notify = run(default_app, LARGEST, failing={"PlanShards": ("E", "c")}).tasks[-1]
    assert re.fullmatch(r"[ -~]{1,100}", notify.parameters["Subject"])


@pytest.mark.parametrize("name", ["evening", "x" * 80, "ünïcode ✓ name"])
def test_all_that_costs_money_carries_the_name_by_which_it_is_cleaned_up(default_app: Synthesised, name: str) -> None:
    done = Services(default_app).run({}, name)
    prefix = job_prefix(done.context["Execution"]["Id"])
    named = {task.state: task.parameters for task in done.tasks}
    jobs = [named[state]["JobName"] for state in ("IngestShards", "CompactBars", "BuildDataset", "FeedTicks")]
    assert jobs == [f"{prefix}-{word}" for word in ("ingest", "compact", "dataset", "feed")]
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", job) for job in jobs)
    assert named["TrainModel"]["TrainingJobName"].startswith(f"{prefix}-")
    assert named["CreateCluster"]["Name"] == f"stockflow-{prefix}"
    assert named["StreamPredictions"]["Step"]["Name"] == f"{prefix}-stream"
    assert [faults(request(task.resource, task.parameters)) for task in done.tasks if task] == [[]] * len(done.tasks)


# --- what the programs are handed ---------------------------------------------------------------


@pytest.mark.parametrize("asked", [{}, ONE_SHARD, LARGEST], ids=["nothing", "one shard", "largest"])
def test_a_batch_job_is_a_command_of_stockflow_with_the_settings_of_the_order(
    any_app: Synthesised, asked: dict[str, Any]
) -> None:
    jobs = {state: task for state, task in tasks(any_app, asked).items() if ":batch:" in task.resource}
    assert len(jobs) == 4
    for state, job in jobs.items():
        name, *words = job.parameters["ContainerOverrides"]["Command"]
        cli.commands[name].make_context(name, list(words))
        environ = {
            **definition_environment(any_app, job.parameters["JobDefinition"]),
            **batch_environment(job.parameters),
        }
        assert place_from_environ(environ).market_bucket == any_app.bucket("Market"), state
        settings = load(environ)
        assert settings.ingest.shards == asked.get("settings", {}).get("ingest", {}).get("shards", 8)


def definition_environment(app: Synthesised, arn: str) -> dict[str, str]:
    """The variables of a job definition."""
    (found,) = (
        resource["Properties"]
        for name, resource in app.compute["Resources"].items()
        if resource["Type"] == "AWS::Batch::JobDefinition" and app.compute_stack.value({"Ref": name}) == arn
    )
    pairs = app.compute_stack.value(found["ContainerProperties"]["Environment"])
    return {pair["Name"]: pair["Value"] for pair in pairs}


def test_a_lone_shard_is_told_its_number_which_an_array_s_child_gets_from_batch(default_app: Synthesised) -> None:
    one = tasks(default_app, ONE_SHARD)["IngestShard"].parameters
    many = tasks(default_app, {})["IngestShards"].parameters
    assert one["ContainerOverrides"]["Command"] == ["ingest", "--shard", "0"]
    assert "ArrayProperties" not in one
    assert many["ContainerOverrides"]["Command"] == ["ingest"]
    assert many["ArrayProperties"] == {"Size": 8}


def test_bars_are_merged_where_the_shards_ran_by_one_job_of_theirs(default_app: Synthesised) -> None:
    for asked, shards in (({}, "IngestShards"), (ONE_SHARD, "IngestShard")):
        jobs = {state: task.parameters for state, task in tasks(default_app, asked).items()}
        assert jobs["CompactBars"]["ContainerOverrides"]["Command"] == ["ingest", "--only", "compact"]
        assert "ArrayProperties" not in jobs["CompactBars"]
        for name in ("JobDefinition", "JobQueue"):
            assert jobs["CompactBars"][name] == jobs[shards][name]


@pytest.mark.parametrize("asked", [{}, {"phases": ["train"]}, LARGEST], ids=["nothing", "train", "largest"])
def test_a_training_job_is_handed_its_dataset_its_settings_and_its_ranks(
    any_app: Synthesised, asked: dict[str, Any]
) -> None:
    job = tasks(any_app, asked)["TrainModel"].parameters
    order = run(any_app, asked).output
    parameters = job["HyperParameters"]
    environ = {**job["Environment"], contract.ENV_SETTINGS: parameters[contract.HYPERPARAMETER_SETTINGS]}
    assert place_from_environ(environ).run_id == order["run_id"]
    assert environ[contract.ENV_DATASET_RUN] == order["dataset_run"]
    assert load(environ).model_dump(mode="json") == order["settings"]
    (channel,) = job["InputDataConfig"]
    uri = f"s3://{any_app.bucket('Model')}/{contract.dataset_spec_key(order['dataset_run'])}".removesuffix("spec.json")
    assert channel["DataSource"]["S3DataSource"]["S3Uri"] == uri
    assert channel.get("InputMode", job["AlgorithmSpecification"]["TrainingInputMode"]) == "FastFile"
    assert f"SM_CHANNEL_{channel['ChannelName'].upper()}" == contract.ENV_DATASET_FOLDER
    ranks = job["ResourceConfig"]["InstanceCount"] * json.loads(parameters["sagemaker_mpi_num_of_processes_per_host"])
    assert ranks == load(environ).training.ranks
    assert json.loads(parameters["sagemaker_mpi_enabled"]) is True


def test_spot_training_waits_for_capacity_and_other_training_does_not(
    default_app: Synthesised, always_on_app: Synthesised
) -> None:
    spot, other = (tasks(app, {})["TrainModel"].parameters for app in (always_on_app, default_app))
    assert spot["EnableManagedSpotTraining"] is True
    assert spot["StoppingCondition"]["MaxWaitTimeInSeconds"] > spot["StoppingCondition"]["MaxRuntimeInSeconds"]
    assert other["EnableManagedSpotTraining"] is False
    assert "MaxWaitTimeInSeconds" not in other["StoppingCondition"]
    for app, job in ((always_on_app, spot), (default_app, other)):
        limits = job["StoppingCondition"].values()
        assert app.states("Task")["TrainModel"]["TimeoutSeconds"] > max(limits)


def test_the_metrics_of_training_are_read_from_the_lines_that_rank_0_prints(default_app: Synthesised) -> None:
    line = " ".join(f"{name}={number}.5e-3" for number, name in enumerate(contract.TRAINING_METRICS))
    defined = tasks(default_app, {})["TrainModel"].parameters["AlgorithmSpecification"]["MetricDefinitions"]
    read = {metric["Name"]: re.findall(metric["Regex"], line) for metric in defined}
    assert read == {name: [f"{number}.5e-3"] for number, name in enumerate(contract.TRAINING_METRICS)}


@pytest.mark.parametrize("asked", [{}, LARGEST], ids=["nothing", "largest"])
def test_the_step_s_script_finds_the_order_s_settings_in_its_arguments(
    any_app: Synthesised, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "emr"))
    words = tasks(any_app, asked)["StreamPredictions"].parameters["Step"]["HadoopJarStep"]["Args"]
    script = next(number for number, word in enumerate(words) if word.startswith("s3://") and word.endswith(".py"))
    assert words[0] == "spark-submit"
    environ, options = importlib.import_module("stream").read_arguments(words[script + 1 :])
    order = run(any_app, asked).output
    assert load(environ).model_dump(mode="json") == order["settings"]
    assert place_from_environ(environ).run_id == order["run_id"]
    assert environ[contract.ENV_METRICS_LOG_GROUP].startswith(any_app.name)
    context = cli.commands["serve"].make_context("serve", ["--no-feed", *options])
    assert context.params["checkpoint"].startswith("hdfs:///")


def test_a_cluster_of_an_execution_ends_by_itself_and_lets_nobody_in(default_app: Synthesised) -> None:
    asked = tasks(default_app, {})["CreateCluster"].parameters
    assert asked["AutoTerminationPolicy"] == {"IdleTimeout": 30 * 60}
    assert asked["Instances"]["TerminationProtected"] is False
    assert "Ec2KeyName" not in asked["Instances"]
    assert MANAGED_BY_EMR.items() <= tags(asked["Tags"]).items()


def test_what_an_execution_starts_is_billed_to_its_deployment_phase_and_run(any_app: Synthesised) -> None:
    asked = tasks(any_app, {"run_id": "evening"})
    for state in asked.keys() & {"TrainModel", "CreateCluster"}:
        phase = "train" if state == "TrainModel" else "serve"
        expected = {"stockflow:deployment": any_app.name, "stockflow:phase": phase, "stockflow:run": "evening"}
        assert tags(asked[state].parameters["Tags"]).items() >= expected.items()


def tags(listed: list[dict[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in listed}

"""The whole machine: what is asked for is checked first, what was started is released whatever happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.states.asl import SNS_FAULTS, State, States, backoff, call, chain, task, when
from infra.states.jobs import Job, dataset_states, ingest_states
from infra.states.serve import Stream, first_serve_state, serve_states
from infra.states.train import TrainingJob, train_states

_END = "Finished"


@dataclass(frozen=True)
class Functions:
    """ARNs of the Lambdas, by what they do."""

    validate_input: str
    plan_shards: str
    check_coverage: str
    gate_model: str
    promote_model: str
    verify_predictions: str
    clean_up: str


@dataclass(frozen=True)
class Targets:
    """All that the definition refers to. fleet_group: see ingest_states; cluster: see serve_states."""

    functions: Functions
    shards: Job
    fleet_group: str | None
    dataset: Job
    training: TrainingJob
    cluster: Mapping[str, Any] | str
    stream: Stream
    feed: Job
    topic: str
    timeout_s: int


def definition(targets: Targets) -> State:
    """The state machine in the Amazon States Language."""
    functions = targets.functions
    asked = {
        "input.$": "$",
        "execution": {"id.$": "$$.Execution.Id"},
        "machine.$": "$$.StateMachine.Id",
    }
    validate = call(functions.validate_input, into=None, payload=asked)
    del validate["ResultPath"]  # the order replaces the input
    states: States = {
        "ValidateInput": validate | {"OutputPath": "$.Payload", "Next": "IfClosed"},
        "IfClosed": when("$.closed", "ExchangeClosed", "Run"),
        "ExchangeClosed": {"Type": "Succeed"},
        "Run": {
            "Type": "Parallel",
            "Branches": [{"StartAt": "IfPlan", "States": _phases(targets)}],
            "ResultSelector": {"run.$": "$[0]"},
            "OutputPath": "$.run",
            "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.failure", "Next": "Release"}],
            "Next": "Succeeded",
        },
        "Succeeded": {"Type": "Succeed"},
        **_failure(targets),
    }
    return {
        "Comment": 'stockflow: ingest, dataset, train, serve. Start it with {} or {"phases": ["train"]}.',
        "StartAt": "ValidateInput",
        "TimeoutSeconds": targets.timeout_s,
        "States": states,
    }


def _phases(targets: Targets) -> States:
    functions = targets.functions
    first = "ScaleFleet" if targets.fleet_group else "IfOneShard"
    plan = call(functions.plan_shards, into="$.plan", fields=("shards", "instances", "tickers", "sessions"))
    return {
        "IfPlan": when("$.phases.plan", "PlanShards", "IfTrain"),
        **chain({"PlanShards": plan}, "IfIngest"),
        "IfIngest": when("$.phases.ingest", first, "IfDataset"),
        **ingest_states(
            shards=targets.shards,
            fleet_group=targets.fleet_group,
            coverage=functions.check_coverage,
            then="IfDataset",
        ),
        "IfDataset": when("$.phases.dataset", "BuildDataset", "IfTrain"),
        **dataset_states(job=targets.dataset, then="IfTrain"),
        "IfTrain": when("$.phases.train", "TrainModel", "IfServe"),
        **train_states(targets.training, gate=functions.gate_model, promote=functions.promote_model, then="IfServe"),
        "IfServe": when("$.phases.serve", first_serve_state(targets.cluster), _END),
        **serve_states(
            cluster=targets.cluster,
            stream=targets.stream,
            feed=targets.feed,
            verify=functions.verify_predictions,
            then=_END,
        ),
        _END: {"Type": "Succeed"},
    }


def _failure(targets: Targets) -> States:
    """Release what the execution holds, tell people, and fail with the error that there was."""
    release = call(
        targets.functions.clean_up,
        into="$.released",
        payload={"execution.$": "$$.Execution.Id", "machine.$": "$$.StateMachine.Id"},
        timeout_s=300,
    )
    release["Retry"].append(backoff("States.ALL", attempts=5, first_s=10))
    notify = task(
        "arn:aws:states:::sns:publish",
        {
            "TopicArn": targets.topic,
            "Subject.$": "States.Format('stockflow run {} failed', $.run_id)",
            "Message.$": "States.Format('{}\n{}', $$.Execution.Id, States.JsonToString($.failure))",
        },
        retry=[backoff(*SNS_FAULTS)],
        timeout_s=60,
    )
    whatever = {"ErrorEquals": ["States.ALL"], "ResultPath": None}
    return {
        "Release": release | {"Catch": [whatever | {"Next": "Notify"}], "Next": "Notify"},
        "Notify": notify | {"Catch": [whatever | {"Next": "Failed"}], "Next": "Failed"},
        "Failed": {"Type": "Fail", "ErrorPath": "$.failure.Error", "CausePath": "$.failure.Cause"},
    }

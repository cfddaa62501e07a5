"""The cases as SageMaker training jobs: executions of the deployed state machine that do nothing but train.

The machine has the roles and the image; whoever starts a sweep needs no right to pass a role. Its gate is set so that
no model of a sweep is promoted.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from app import contract
from app.errors import StockflowError, TrainingError
from app.progress import Say
from app.scaling.cases import Case, Row, Times, read_times
from app.scaling.deployment import MACHINE_OUTPUT, asking_aws, connect, read_outputs
from app.scaling.sweep import Sweep
from app.storage import Bucket
from app.workflow.names import job_prefix

TOOLKIT_SLEEP_S = 30.0
"""What sagemaker-training's master sleeps once its ranks have succeeded; it is billed."""
_EVERY_S = 5.0
_MOST_UNANSWERED = 12
"""So often in a row an execution may not be told of; botocore has tried each time itself."""
_LONGEST = 300
"""Characters of a reason."""


def measure_on_sagemaker(
    sweep: Sweep, environ: Mapping[str, str], say: Say, every_s: float = _EVERY_S
) -> Generator[Row, None, None]:
    """Rows of the cases as they end; what still runs when this is left is stopped.

    Raises SettingsError without a state machine and TrainingError when it refuses to start the first execution; what
    happens to later ones, or to one of which AWS tells nothing for long, is in their rows.
    """
    machine = sweep.machine or read_outputs(f"{sweep.deployment}-compute")[MACHINE_OUTPUT]
    states = connect("stepfunctions")
    waiting = list(sweep.cases)
    running: dict[str, Case] = {}
    unanswered: Counter[str] = Counter()
    try:
        while waiting or running:
            while waiting and len(running) < sweep.at_once:
                case = waiting.pop(0)
                try:
                    running[_start(states, machine, sweep, case)] = case
                except TrainingError as exc:
                    if case == sweep.cases[0]:
                        raise
                    yield Row(case, note=sweep.instance_type(case), error=str(exc))
                    continue
                say(f"{case.name}: {case.nodes} x {sweep.instance_type(case)}, execution {sweep.run_id(case)}")
            time.sleep(every_s)
            for arn, case in list(running.items()):
                described = _described(states, arn, unanswered)
                if described["status"] != "RUNNING":
                    del running[arn]
                    yield _row(case, sweep, arn, described)
    finally:
        for arn in running:
            _stop(states, arn, "the sweep was left")


def execution_input(sweep: Sweep, case: Case) -> dict[str, Any]:
    """What the state machine is asked for."""
    settings = sweep.overrides(case)
    return {
        "phases": ["train"],
        "run_id": sweep.run_id(case),
        **({"dataset_run": sweep.dataset_run} if sweep.dataset_run else {}),
        "settings": {**settings, "gate": {**settings.get("gate", {}), "min_skill": 1.0}},
        "training": {
            "instance_type": sweep.instance_type(case),
            "instances": case.nodes,
            "processes": case.gpus,
        },
    }


def job_times(times: Times, described: Mapping[str, Any]) -> Times:
    """Times with what DescribeTrainingJob tells of the job around the training."""
    training = [one for one in described["SecondaryStatusTransitions"] if one["Status"] == "Training"]
    begun: datetime = training[0]["StartTime"]
    ended: datetime = training[-1].get("EndTime", described["TrainingEndTime"])
    rest_s = (ended - begun).total_seconds() - (times.startup_s or 0.0) - (times.train_s or 0.0)
    sleep_s = TOOLKIT_SLEEP_S if rest_s >= TOOLKIT_SLEEP_S else 0.0  # the embedded SageMaker does not sleep
    waited_s = (begun - described["CreationTime"]).total_seconds()
    return replace(times, waited_s=waited_s, rest_s=rest_s - sleep_s, sleep_s=sleep_s)


def failure_reason(described: Mapping[str, Any]) -> str:
    """Why an execution failed, in a line: SageMaker's and Lambda's causes are JSON."""
    error, cause = described.get("error") or described["status"], described.get("cause") or ""
    try:
        told = json.loads(cause)
        cause = told.get("FailureReason") or told.get("errorMessage") or cause
    except (ValueError, AttributeError):
        pass
    text = " ".join(str(cause).split())
    return f"{error}: {text[:_LONGEST]}" if text else str(error)


def _start(states: Any, machine: str, sweep: Sweep, case: Case) -> str:
    with asking_aws():
        started = states.start_execution(
            stateMachineArn=machine, name=sweep.run_id(case), input=json.dumps(execution_input(sweep, case))
        )
    return str(started["executionArn"])


def _described(states: Any, arn: str, unanswered: Counter[str]) -> Mapping[str, Any]:
    """How an execution stands; as long as AWS does not tell, it runs. unanswered: how often in a row it did not."""
    try:
        with asking_aws():
            described: Mapping[str, Any] = states.describe_execution(executionArn=arn)
    except TrainingError as exc:
        unanswered[arn] += 1
        if unanswered[arn] < _MOST_UNANSWERED:
            return {"status": "RUNNING"}
        _stop(states, arn, "the sweep could not ask for it any more")
        return {"status": "UNKNOWN", "error": str(exc)}
    unanswered[arn] = 0
    return described


def _stop(states: Any, arn: str, cause: str) -> None:
    with suppress(StockflowError), asking_aws():
        states.stop_execution(executionArn=arn, error="Interrupted", cause=cause)


def _row(case: Case, sweep: Sweep, arn: str, described: Mapping[str, Any]) -> Row:
    note = sweep.instance_type(case)
    if described["status"] != "SUCCEEDED":
        return Row(case, note=note, error=failure_reason(described))
    try:
        job = _training_job(arn)
        models = Bucket(job["Environment"][contract.ENV_MODEL_BUCKET])
        model_id = models.get_json(contract.candidate_key(sweep.run_id(case)))["model_id"]
        times = read_times(models.get_json(contract.model_key(model_id, contract.MODEL_METRICS)))
    except StockflowError as exc:
        return Row(case, note=note, error=str(exc))
    return Row(case, job_times(times, job), note)


def _training_job(arn: str) -> dict[str, Any]:
    """The execution's training job, the last one where it was tried again."""
    sagemaker = connect("sagemaker")
    with asking_aws():
        found = sagemaker.list_training_jobs(
            NameContains=f"{job_prefix(arn)}-", SortBy="CreationTime", SortOrder="Descending", MaxResults=1
        )["TrainingJobSummaries"]
        if not found:
            raise TrainingError(f"execution {arn} succeeded, but its training job is not listed: look in SageMaker")
        described: dict[str, Any] = sagemaker.describe_training_job(TrainingJobName=found[0]["TrainingJobName"])
    return described

"""Follows an execution to its end."""

from __future__ import annotations

import time

from app.errors import SettingsError
from app.workflow.names import cluster_name, job_prefix
from embedded.execution import Execution, read_execution
from embedded.local import GoneError, Local
from embedded.phase_logs import PhaseLogs
from embedded.screen import Screen

_EVERY_S = 1.0
_CLEAN_UP_S = 60.0


def begin(local: Local, text: str, name: str | None = None) -> str:
    """Start an execution with a JSON input; returns its ARN."""
    states, named = local.connect("stepfunctions"), {"name": name} if name else {}
    try:
        return str(states.start_execution(stateMachineArn=local.machine, input=text, **named)["executionArn"])
    except states.exceptions.ExecutionAlreadyExists as exc:
        raise SettingsError(f"there is an execution {name} already: choose another name with --run-id") from exc


def follow(local: Local, arn: str, screen: Screen) -> Execution:
    """Show the execution until it has ended; returns it as it ended. GoneError tells it as it was last seen."""
    states, logs = local.connect("stepfunctions"), PhaseLogs(local.connect)
    seen: Execution | None = None
    try:
        while True:
            with local.answering():
                seen = read_execution(states, arn)
                for label, line in logs.new_lines(seen):
                    screen.said(label, line)
            screen.show(seen)
            if seen.ended:
                return seen
            time.sleep(_EVERY_S)
    except GoneError as gone:
        gone.seen = seen
        raise


def stop(local: Local, arn: str, cause: str) -> tuple[Execution, list[str]]:
    """Stop the execution and wait until all that it holds is released; returns what is still held then, too."""
    states = local.connect("stepfunctions")
    states.stop_execution(executionArn=arn, error="Interrupted", cause=cause)
    deadline = time.monotonic() + _CLEAN_UP_S
    while (held := holds(local, arn)) and time.monotonic() < deadline:
        time.sleep(_EVERY_S / 2)
    return read_execution(states, arn), held


def holds(local: Local, arn: str | None = None) -> list[str]:
    """What is still there that costs money, of one execution or of all: jobs, training jobs, clusters, instances.

    The fleet belongs to whoever is executed: after an execution to none, unless another one runs.
    """
    prefix = job_prefix(arn) if arn else ""
    batch, emr = local.connect("batch"), local.connect("emr")
    found = [
        job["jobName"]
        for queue in batch.describe_job_queues()["jobQueues"]
        for status in ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
        for job in batch.list_jobs(jobQueue=queue["jobQueueArn"], jobStatus=status)["jobSummaryList"]
    ]
    training = local.connect("sagemaker").list_training_jobs(StatusEquals="InProgress")["TrainingJobSummaries"]
    found += [job["TrainingJobName"] for job in training]
    alive = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING"]
    clusters = [cluster["Name"] for cluster in emr.list_clusters(ClusterStates=alive)["Clusters"]]
    if arn:
        found = [name for name in found if name.startswith(f"{prefix}-")]
        clusters = [name for name in clusters if name == cluster_name(prefix)]
        running = local.connect("stepfunctions").list_executions(stateMachineArn=local.machine, statusFilter="RUNNING")[
            "executions"
        ]
        if any(execution["executionArn"] != arn for execution in running):
            return found + clusters
    groups = local.connect("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    return [*found, *clusters] + [group["AutoScalingGroupName"] for group in groups if group["DesiredCapacity"]]

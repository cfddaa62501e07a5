"""Follows an execution to its end."""

from __future__ import annotations

import time

from botocore.exceptions import BotoCoreError, ClientError

from app.errors import StockflowError
from embedded.execution import Execution, read_execution
from embedded.local import Local
from embedded.phase_logs import PhaseLogs
from embedded.screen import Screen

_EVERY_S = 1.0
_CLEAN_UP_S = 60.0


class GoneError(StockflowError):
    """The embedded AWS went away."""

    exit_code = 10


def follow(local: Local, arn: str, screen: Screen) -> Execution:
    """Show the execution until it has ended; returns it as it ended."""
    states, logs = local.connect("stepfunctions"), PhaseLogs(local.connect)
    while True:
        try:
            execution = read_execution(states, arn)
            for label, line in logs.new_lines(execution):
                screen.said(label, line)
        except (BotoCoreError, ClientError) as exc:
            raise GoneError(f"the embedded AWS at {local.url} does not answer any more: {exc}") from exc
        screen.show(execution)
        if execution.ended:
            return execution
        time.sleep(_EVERY_S)


def stop(local: Local, arn: str, cause: str) -> Execution:
    """Stop the execution and wait until all that it holds is released."""
    states = local.connect("stepfunctions")
    states.stop_execution(executionArn=arn, error="Interrupted", cause=cause)
    deadline = time.monotonic() + _CLEAN_UP_S
    while holds(local) and time.monotonic() < deadline:
        time.sleep(_EVERY_S / 2)
    return read_execution(states, arn)


def holds(local: Local) -> list[str]:
    """What is still there that costs money: jobs, training jobs, clusters, instances."""
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
    found += [cluster["Name"] for cluster in emr.list_clusters(ClusterStates=alive)["Clusters"]]
    groups = local.connect("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    return found + [group["AutoScalingGroupName"] for group in groups if group["DesiredCapacity"]]

"""What an execution may leave running when it ends before its own release: jobs, a cluster, the ingest fleet.

All of it is found from the execution's ARN, because who cleans up after an abort knows nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from app import contract
from app.errors import StockflowError
from app.workflow.fleet import ingesting_elsewhere
from app.workflow.names import cluster_name, job_prefix

_REASON: Final = "the execution that started it has ended"
_ENDED_JOBS: Final = frozenset({"SUCCEEDED", "FAILED"})
_ACTIVE_CLUSTER: Final = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")

Connect = Callable[[str], Any]
"""boto3.client: a client of the service of this name."""


@dataclass(frozen=True)
class Held:
    """Where the executions of a deployment leave what costs money.

    queues: Batch job queues; fleet: Auto Scaling group of the ingest fleet, empty where Batch manages its
    own; cluster_id: the EMR cluster that is always on, empty where each execution has its own.
    """

    queues: tuple[str, ...] = ()
    fleet: str = ""
    cluster_id: str = ""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Held:
        """As the deployment tells its Lambda."""
        return cls(
            queues=tuple(queue for queue in environ.get(contract.ENV_JOB_QUEUES, "").split(",") if queue),
            fleet=environ.get(contract.ENV_FLEET_GROUP, ""),
            cluster_id=environ.get(contract.ENV_CLUSTER_ID, ""),
        )


@dataclass(frozen=True)
class _Release:
    """One kind of thing to release: find what is still held, then end each."""

    kind: str
    find: Callable[[], list[str]]
    end: Callable[[str], Any]


def clean_up(execution_arn: str, machine_arn: str, held: Held, connect: Connect) -> dict[str, list[str]]:
    """Release what the execution holds; returns the names of what was released, by kind.

    Each release is tried, whatever the others do. Raises StockflowError with all failures: a repetition
    releases the rest. Nothing to release is no error.
    """
    released: dict[str, list[str]] = {}
    failures: list[str] = []
    for release in _releases(execution_arn, machine_arn, held, connect):
        try:
            found = release.find()
        except Exception as exc:  # whatever it is, the others cost money meanwhile
            failures.append(f"{release.kind}: {exc}")
            continue
        for name in found:
            try:
                release.end(name)
            except Exception as exc:
                failures.append(f"{release.kind} {name}: {exc}")
            else:
                released.setdefault(release.kind, []).append(name)
    if failures:
        raise StockflowError(
            f"{execution_arn} still holds what was not released, clean up again: {'; '.join(failures)}"
        )
    return released


def _releases(execution_arn: str, machine_arn: str, held: Held, connect: Connect) -> list[_Release]:
    """Jobs before the fleet that they run on."""
    prefix = job_prefix(execution_arn)
    batch, sagemaker, emr = connect("batch"), connect("sagemaker"), connect("emr")
    releases = [
        *(_Release("jobs", partial(_jobs, batch, queue, prefix), partial(_end_job, batch)) for queue in held.queues),
        _Release("training jobs", partial(_training_jobs, sagemaker, prefix), partial(_stop_training, sagemaker)),
        _Release("steps", partial(_steps, emr, held.cluster_id, prefix), partial(_cancel_step, emr, held.cluster_id))
        if held.cluster_id
        else _Release("clusters", partial(_clusters, emr, prefix), partial(_end_cluster, emr)),
    ]
    if held.fleet:
        scaling, states = connect("autoscaling"), connect("stepfunctions")
        used = partial(_used_fleet, scaling, states, held.fleet, machine_arn, execution_arn)
        releases.append(_Release("fleet", used, partial(_scale_to_zero, scaling)))
    return releases


def _jobs(batch: Any, queue: str, prefix: str) -> list[str]:
    """Jobs that have not ended; ending an array job's parent ends its children."""
    filters = [{"name": "JOB_NAME", "values": [f"{prefix}-*"]}]
    pages = batch.get_paginator("list_jobs").paginate(jobQueue=queue, filters=filters)
    jobs = [job for page in pages for job in page["jobSummaryList"]]
    # The filter ignores capitals and returns jobs in every state.
    return [j["jobId"] for j in jobs if j["jobName"].startswith(f"{prefix}-") and j["status"] not in _ENDED_JOBS]


def _end_job(batch: Any, job_id: str) -> None:
    batch.terminate_job(jobId=job_id, reason=_REASON)


def _training_jobs(sagemaker: Any, prefix: str) -> list[str]:
    pages = sagemaker.get_paginator("list_training_jobs").paginate(NameContains=prefix, StatusEquals="InProgress")
    names = [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]]
    return [name for name in names if name.startswith(f"{prefix}-")]


def _stop_training(sagemaker: Any, name: str) -> None:
    sagemaker.stop_training_job(TrainingJobName=name)


def _clusters(emr: Any, prefix: str) -> list[str]:
    """The execution's own cluster. One with termination protection was made by somebody else."""
    pages = emr.get_paginator("list_clusters").paginate(ClusterStates=list(_ACTIVE_CLUSTER))
    name = cluster_name(prefix)
    ids = [cluster["Id"] for page in pages for cluster in page["Clusters"] if cluster["Name"] == name]
    return [i for i in ids if not emr.describe_cluster(ClusterId=i)["Cluster"]["TerminationProtected"]]


def _end_cluster(emr: Any, cluster_id: str) -> None:
    emr.terminate_job_flows(JobFlowIds=[cluster_id])


def _steps(emr: Any, cluster_id: str, prefix: str) -> list[str]:
    pages = emr.get_paginator("list_steps").paginate(ClusterId=cluster_id, StepStates=["PENDING", "RUNNING"])
    return [step["Id"] for page in pages for step in page["Steps"] if step["Name"].startswith(f"{prefix}-")]


def _cancel_step(emr: Any, cluster_id: str, step_id: str) -> None:
    answer = emr.cancel_steps(ClusterId=cluster_id, StepIds=[step_id])
    refused = [info for info in answer["CancelStepsInfoList"] if info["Status"] == "FAILED"]
    if refused:
        raise StockflowError(refused[0].get("Reason") or "EMR does not cancel it")


def _used_fleet(scaling: Any, states: Any, group: str, machine_arn: str, execution_arn: str) -> list[str]:
    """The fleet, when it has instances and no other execution ingests."""
    groups = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
    if not any(found["DesiredCapacity"] for found in groups):
        return []
    return [] if ingesting_elsewhere(states, machine_arn, execution_arn) else [group]


def _scale_to_zero(scaling: Any, group: str) -> None:
    scaling.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=0, HonorCooldown=False)

"""Step Functions' own integrations with Batch, SageMaker and EMR, which moto has in part or not at all, as a table.

Each names the API's call, makes its parameters of the state's, and says how the end of what was started is found out.
https://docs.aws.amazon.com/step-functions/latest/dg/integrate-optimized.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from embedded.aws.states.answers import ask


@dataclass(frozen=True)
class Waiting:
    """How the end of something started is found out, and how it is ended early. Both get a client and its id."""

    find: Callable[[Any, str], dict[str, Any] | None]
    """What it ended as, None while it runs; raises Unsuccessful."""
    cancel: Callable[[Any, str], None]


class Unsuccessful(Exception):
    """What was waited for ended, and not well: its description."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        super().__init__(described)
        self.described = described


@dataclass(frozen=True)
class Action:
    """One action of an integration.

    operation: the API's; request: makes its parameters of the state's; answer: what the state's result is;
    identify: the id of what was started, from that answer and the request; waiting: None where there is no .sync.
    """

    operation: str
    request: Callable[[dict[str, Any]], dict[str, Any]] = lambda parameters: parameters
    answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda response: response
    identify: Callable[[dict[str, Any], dict[str, Any]], str] = lambda answer, request: ""
    waiting: Waiting | None = None


@dataclass(frozen=True)
class Integration:
    """A service: its name for boto3, how its errors begin, the error of what it has no name for, its actions."""

    boto_name: str
    errors: str
    unnamed_error: str
    actions: Mapping[str, Action]


# --- Batch ---------------------------------------------------------------------------------------


def _job(batch: Any, job_id: str) -> dict[str, Any] | None:
    job: dict[str, Any] = ask(batch, "describe_jobs", jobs=[job_id])["Jobs"][0]
    return _ended(job, job["Status"], "SUCCEEDED", {"FAILED"})


def _terminate_job(batch: Any, job_id: str) -> None:
    batch.terminate_job(jobId=job_id, reason="Terminated by Step Functions: the state no longer waits for it")


def _managed_job(parameters: dict[str, Any]) -> dict[str, Any]:
    """With the variable by which a container knows who started it."""
    overrides = parameters.setdefault("ContainerOverrides", {})
    mark = {"Name": "MANAGED_BY_AWS", "Value": "STARTED_BY_STEP_FUNCTIONS"}
    overrides["Environment"] = [*overrides.get("Environment", []), mark]
    return parameters


_BATCH = Integration(
    "batch",
    "Batch",
    "AWSBatchException",
    {
        "submitJob": Action(
            "submit_job",
            request=_managed_job,
            identify=lambda answer, request: str(answer["JobId"]),
            waiting=Waiting(_job, _terminate_job),
        )
    },
)

# --- SageMaker -----------------------------------------------------------------------------------


def _training_job(sagemaker: Any, name: str) -> dict[str, Any] | None:
    job = ask(sagemaker, "describe_training_job", TrainingJobName=name)
    return _ended(job, job["TrainingJobStatus"], "Completed", {"Failed", "Stopped"})


_SAGEMAKER = Integration(
    "sagemaker",
    "SageMaker",
    "AmazonSageMakerException",
    {
        "createTrainingJob": Action(
            "create_training_job",
            identify=lambda answer, request: str(request["TrainingJobName"]),
            waiting=Waiting(_training_job, lambda sagemaker, name: sagemaker.stop_training_job(TrainingJobName=name)),
        )
    },
)

# --- EMR -----------------------------------------------------------------------------------------


def _cluster(emr: Any, cluster_id: str) -> dict[str, Any] | None:
    cluster = ask(emr, "describe_cluster", ClusterId=cluster_id)["Cluster"]
    failed = {"TERMINATED_WITH_ERRORS", "TERMINATED"}
    return _ended({"ClusterId": cluster_id, "Cluster": cluster}, cluster["Status"]["State"], "WAITING", failed)


def _ended_cluster(emr: Any, cluster_id: str) -> dict[str, Any] | None:
    cluster = ask(emr, "describe_cluster", ClusterId=cluster_id)["Cluster"]
    state = cluster["Status"]["State"]
    return _ended({"ClusterId": cluster_id, "Cluster": cluster}, state, "TERMINATED", {"TERMINATED_WITH_ERRORS"})


def _step(emr: Any, both_ids: str) -> dict[str, Any] | None:
    cluster_id, step_id = both_ids.split("/")
    step = ask(emr, "describe_step", ClusterId=cluster_id, StepId=step_id)["Step"]
    failed = {"FAILED", "CANCELLED", "INTERRUPTED"}
    return _ended({"StepId": step_id, "Step": step}, step["Status"]["State"], "COMPLETED", failed)


def _cancel_step(emr: Any, both_ids: str) -> None:
    cluster_id, step_id = both_ids.split("/")
    emr.cancel_steps(ClusterId=cluster_id, StepIds=[step_id])


def _left_alone(emr: Any, cluster_id: str) -> None:
    """A cluster that is being created, or terminated, goes on with that, as on AWS."""


_EMR = Integration(
    "emr",
    "ElasticMapReduce",
    "AmazonElasticMapReduceException",
    {
        "createCluster": Action(
            "run_job_flow",
            answer=lambda response: {"ClusterId": response["JobFlowId"], "ClusterArn": response.get("ClusterArn", "")},
            identify=lambda answer, request: str(answer["ClusterId"]),
            waiting=Waiting(_cluster, _left_alone),
        ),
        "terminateCluster": Action(
            "terminate_job_flows",
            request=lambda parameters: {"JobFlowIds": [parameters["ClusterId"]]},
            identify=lambda answer, request: str(request["JobFlowIds"][0]),
            waiting=Waiting(_ended_cluster, _left_alone),
        ),
        "addStep": Action(
            "add_job_flow_steps",
            request=lambda parameters: {"JobFlowId": parameters["ClusterId"], "Steps": [parameters["Step"]]},
            answer=lambda response: {"StepId": response["StepIds"][0]},
            identify=lambda answer, request: f"{request['JobFlowId']}/{answer['StepId']}",
            waiting=Waiting(_step, _cancel_step),
        ),
        "cancelStep": Action(
            "cancel_steps",
            request=lambda parameters: {"ClusterId": parameters["ClusterId"], "StepIds": [parameters["StepId"]]},
        ),
    },
)

INTEGRATIONS = {"batch": _BATCH, "sagemaker": _SAGEMAKER, "elasticmapreduce": _EMR}


def _ended(described: dict[str, Any], status: str, well: str, badly: set[str]) -> dict[str, Any] | None:
    if status in badly:
        raise Unsuccessful(described)
    return described if status == well else None

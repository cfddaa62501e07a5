"""EMR on one machine: clusters that live and die, and steps that are real Spark drivers.

`install` puts it into moto's classes: moto keeps clusters and steps and answers the API; what moves them from state to
state is here. A cluster is a folder and its steps' processes: `life` is its life, `nodes` what it is made of, `step` a
step's work, `submit` what becomes of spark-submit's words, `logs` what goes to the LogUri.

Other than on AWS: nodes have their role's credentials in variables instead of the metadata service; bootstrap actions
and `Configurations` are kept and not carried out, for the software is that of this interpreter's environment; an idle
timeout may be shorter than a minute; the logs of a step in cluster mode hold the driver's output, where EMR's hold
YARN's reports (both have it under containers/); plain paths are not the cluster's file system, `hdfs:///` URLs are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final

from moto.core.responses import ActionResult, EmptyResult
from moto.emr.exceptions import InvalidCluster, InvalidRequestException, ValidationException
from moto.emr.models import Cluster, ElasticMapReduceBackend, Step
from moto.emr.responses import ElasticMapReduceResponse

from embedded.aws.cluster.life import GRACE_S, Life
from embedded.aws.host import Host

_OF_A_CLUSTER: Final = (
    *("list_steps", "modify_cluster", "add_instance_groups", "list_bootstrap_actions", "list_instance_groups"),
    "list_instances",
)
"""Calls for which moto fails with a KeyError when there is no such cluster."""


def install(host: Host) -> None:
    """Let moto's EMR in this process run its clusters on `host`."""
    lives: dict[str, Life] = {}
    _give_life(host, lives)
    _refuse_as_aws_does()
    _answer_in_full(lives)


def _give_life(host: Host, lives: dict[str, Life]) -> None:
    """Clusters and steps begin as AWS's do, and change in their own time."""
    create = ElasticMapReduceBackend.run_job_flow

    def run_job_flow(self: Any, *, steps: Sequence[Any] = (), **parameters: Any) -> Any:
        cluster = create(self, steps=[], **parameters)
        lives[cluster.id] = Life(host, cluster)
        cluster.add_steps(steps)
        lives[cluster.id].begin()
        return cluster

    def add_steps(self: Any, steps: Sequence[Any]) -> list[Any]:
        added = [Step(state="PENDING", **step) for step in steps]
        if added:  # moto's constructor adds none, before there is a life
            lives[self.id].add(added)
        return added

    def terminate(self: Any) -> None:
        lives[self.id].terminate()

    ElasticMapReduceBackend.run_job_flow = run_job_flow
    Cluster.add_steps = add_steps
    Cluster.run_bootstrap_actions = lambda self: None
    Cluster.terminate = terminate


def _refuse_as_aws_does() -> None:
    """Unknown clusters and steps are told so, in AWS's words."""
    terminate = ElasticMapReduceBackend.terminate_job_flows

    def add_job_flow_steps(self: Any, job_flow_id: str, steps: Sequence[Any]) -> list[Any]:
        _check_job_flows(self, [job_flow_id])
        added: list[Any] = self.clusters[job_flow_id].add_steps(steps)
        return added

    def terminate_job_flows(self: Any, job_flow_ids: Sequence[str]) -> Any:
        _check_job_flows(self, job_flow_ids)
        return terminate(self, job_flow_ids)

    def describe_step(self: Any, cluster_id: str, step_id: str) -> Any:
        found = [step for step in self.describe_cluster(cluster_id).steps if step.id == step_id]
        if not found:
            raise InvalidRequestException(f"Step id '{step_id}' is not valid.")
        return found[0]

    ElasticMapReduceBackend.add_job_flow_steps = add_job_flow_steps
    ElasticMapReduceBackend.terminate_job_flows = terminate_job_flows
    ElasticMapReduceBackend.describe_step = describe_step
    for name in _OF_A_CLUSTER:
        setattr(ElasticMapReduceBackend, name, _of_a_cluster(getattr(ElasticMapReduceBackend, name)))


def _check_job_flows(backend: Any, ids: Sequence[str]) -> None:
    if any(job_flow_id not in backend.clusters for job_flow_id in ids):
        raise ValidationException("Specified job flow ID not valid.")


def _of_a_cluster(method: Callable[..., Any]) -> Callable[..., Any]:
    """The backend's method, refusing an unknown cluster."""

    @wraps(method)
    def checked(self: Any, cluster_id: str, *rest: Any, **more: Any) -> Any:
        if cluster_id not in self.clusters:
            raise InvalidCluster(cluster_id)
        return method(self, cluster_id, *rest, **more)

    return checked


def _answer_in_full(lives: dict[str, Life]) -> None:
    """Calls and fields of answers that moto lacks."""
    run_job_flow = ElasticMapReduceResponse.run_job_flow

    def run_job_flow_with_policy(self: Any) -> Any:
        answer = run_job_flow(self)
        cluster = self.backend.clusters[answer.result["JobFlowId"]]
        cluster.idle_timeout_s = _idle_timeout(self._get_param("AutoTerminationPolicy"))
        return answer

    def put_auto_termination_policy(self: Any) -> Any:
        cluster = self.backend.describe_cluster(self._get_param("ClusterId"))
        cluster.idle_timeout_s = _idle_timeout(self._get_param("AutoTerminationPolicy"))
        return EmptyResult()

    def get_auto_termination_policy(self: Any) -> Any:
        limit_s = getattr(self.backend.describe_cluster(self._get_param("ClusterId")), "idle_timeout_s", None)
        return ActionResult({"AutoTerminationPolicy": {"IdleTimeout": limit_s}} if limit_s is not None else {})

    def remove_auto_termination_policy(self: Any) -> Any:
        self.backend.describe_cluster(self._get_param("ClusterId")).idle_timeout_s = None
        return EmptyResult()

    def cancel_steps(self: Any) -> Any:
        life = lives[self.backend.describe_cluster(self._get_param("ClusterId")).id]
        grace_s = 0.0 if self._get_param("StepCancellationOption") == "TERMINATE_PROCESS" else GRACE_S
        refusals = {step_id: life.cancel(step_id, grace_s) for step_id in self._get_param("StepIds", [])}
        infos = [
            {"StepId": step_id, "Status": "FAILED" if refusal else "SUBMITTED", "Reason": refusal}
            for step_id, refusal in refusals.items()
        ]
        return ActionResult({"CancelStepsInfoList": infos})

    ElasticMapReduceResponse.run_job_flow = run_job_flow_with_policy
    ElasticMapReduceResponse.put_auto_termination_policy = put_auto_termination_policy
    ElasticMapReduceResponse.get_auto_termination_policy = get_auto_termination_policy
    ElasticMapReduceResponse.remove_auto_termination_policy = remove_auto_termination_policy
    ElasticMapReduceResponse.cancel_steps = cancel_steps
    Cluster.status = property(_cluster_status)
    Step.status = property(_step_status)


def _idle_timeout(policy: Any) -> int | None:
    return int(policy["IdleTimeout"]) if policy and policy.get("IdleTimeout") is not None else None


def _cluster_status(cluster: Any) -> dict[str, Any]:
    return {
        "State": cluster.state,
        "StateChangeReason": _reason(
            getattr(cluster, "state_change_code", None), getattr(cluster, "last_state_change_reason", None)
        ),
        "Timeline": {
            "CreationDateTime": cluster.creation_datetime,
            "ReadyDateTime": cluster.ready_datetime,
            "EndDateTime": cluster.end_datetime,
        },
    }


def _step_status(step: Any) -> dict[str, Any]:
    return {
        "State": step.state,
        "StateChangeReason": _reason(None, getattr(step, "last_state_change_reason", None)),
        "FailureDetails": getattr(step, "failure_details", None),
        "Timeline": {
            "CreationDateTime": step.creation_date_time,
            "StartDateTime": step.start_date_time,
            "EndDateTime": step.end_date_time,
        },
    }


def _reason(code: str | None, message: str | None) -> dict[str, str]:
    return {name: text for name, text in (("Code", code), ("Message", message)) if text}

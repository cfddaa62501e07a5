"""What an operator is told: of executions, of what they hold, and when nothing answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from app.errors import SettingsError, StockflowError
from app.workflow.names import cluster_name, job_prefix
from embedded.local import GoneError, Local
from embedded.operate import print_logs, show_status, start_execution, stop_execution
from embedded.watch import begin, holds

START = datetime(2026, 3, 16, 20, 0, tzinfo=UTC)
OWN, OTHER = "arn:execution:own", "arn:execution:other"
OUTPUTS = {"StateMachine": "machine", "MarketBucket": "bars", "ModelBucket": "nets", "PredictionsBucket": "forecasts"}
DEPLOYED = {"stacks": {"s": {"outputs": OUTPUTS}}, "not_created": {}, "seconds": 1.0}


@dataclass
class Account:
    """An AWS account with executions, oldest first. held: names of jobs and clusters; error: of each request."""

    executions: dict[str, str] = field(default_factory=dict)
    held: tuple[str, ...] = ()
    fleet: int = 0
    error: Exception | None = None

    class exceptions:  # noqa: N801
        class ExecutionAlreadyExists(ClientError):  # type: ignore[misc]
            """As botocore makes it."""

    def get_paginator(self, operation: str) -> Any:
        account = self

        class Pages:
            def paginate(self, **asked: Any) -> list[Any]:
                return [getattr(account, operation)(**asked)]

        return Pages()

    def list_executions(self, statusFilter: str | None = None, **asked: Any) -> dict[str, Any]:  # noqa: N803
        if self.error:
            raise self.error
        return {
            "executions": [
                {"executionArn": arn, "name": arn[14:], "status": status, "startDate": START + timedelta(minutes=n)}
                for n, (arn, status) in enumerate(self.executions.items())
                if statusFilter in {None, status}
            ]
        }

    def start_execution(self, **asked: Any) -> dict[str, Any]:
        if self.error:
            raise self.error
        raise self.exceptions.ExecutionAlreadyExists({"Error": {}}, "StartExecution")

    def stop_execution(self, **asked: Any) -> None:
        self.executions[asked["executionArn"]] = "ABORTED"

    def describe_execution(self, **asked: Any) -> dict[str, Any]:
        arn = asked["executionArn"]
        return {"name": arn[14:], "status": self.executions[arn], "startDate": START}

    def get_execution_history(self, **asked: Any) -> dict[str, Any]:
        return {"events": []}

    def describe_job_queues(self) -> dict[str, Any]:
        return {"jobQueues": [{"jobQueueArn": "queue"}]}

    def list_jobs(self, **asked: Any) -> dict[str, Any]:
        names = [name for name in self.held if not name.startswith("stockflow-")]
        return {"jobSummaryList": [{"jobName": name} for name in names if asked["jobStatus"] == "RUNNING"]}

    def list_training_jobs(self, **asked: Any) -> dict[str, Any]:
        return {"TrainingJobSummaries": []}

    def list_clusters(self, **asked: Any) -> dict[str, Any]:
        return {"Clusters": [{"Name": name} for name in self.held if name.startswith("stockflow-")]}

    def describe_auto_scaling_groups(self) -> dict[str, Any]:
        return {"AutoScalingGroups": [{"AutoScalingGroupName": "fleet", "DesiredCapacity": self.fleet}]}


@dataclass(frozen=True)
class Faked(Local):
    account: Account = field(default_factory=Account)

    def connect(self, service: str) -> Any:
        return self.account


def local(account: Account) -> Faked:
    return Faked("http://127.0.0.1:1", "simulated", (), None, DEPLOYED, 0, account)


def test_the_newest_execution_that_runs_is_stopped() -> None:
    account = Account({OWN: "RUNNING", OTHER: "FAILED"})
    assert stop_execution(local(account), None) == "own: ABORTED"
    assert account.executions == {OWN: "ABORTED", OTHER: "FAILED"}
    assert stop_execution(local(account), None) == "other has ended already: FAILED"
    assert stop_execution(local(account), "own") == "own has ended already: ABORTED"


def test_what_other_executions_hold_is_not_waited_for() -> None:
    own, other = (f"{job_prefix(arn)}-ingest" for arn in (OWN, OTHER))
    clusters = [cluster_name(job_prefix(arn)) for arn in (OWN, OTHER)]
    account = Account({OWN: "ABORTED", OTHER: "RUNNING"}, (own, other, *clusters), fleet=2)
    assert holds(local(account), OWN) == [own, clusters[0]]
    account.executions[OTHER] = "SUCCEEDED"
    assert holds(local(account), OWN) == [own, clusters[0], "fleet"]
    assert holds(local(account)) == [own, other, *clusters, "fleet"]


def test_what_is_still_held_after_the_patience_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedded.watch._CLEAN_UP_S", 0.0)
    job = f"{job_prefix(OWN)}-ingest"
    assert stop_execution(local(Account({OWN: "RUNNING"}, (job,))), None) == f"own: ABORTED; still held: {job}"


def test_a_name_that_is_taken_is_refused_with_what_to_do() -> None:
    with pytest.raises(SettingsError, match="there is an execution r already: choose another name with --run-id"):
        begin(local(Account()), "{}", "r")


def test_an_embedded_aws_that_is_gone_is_one_line() -> None:
    gone = local(Account(error=EndpointConnectionError(endpoint_url="http://127.0.0.1:1")))
    for ask in (
        lambda: start_execution(gone, "{}"),
        lambda: show_status(gone, None),
        lambda: print_logs(gone, "ingest", None, follow=False),
        lambda: stop_execution(gone, None),
    ):
        with pytest.raises(GoneError, match=r"the embedded AWS at http://127\.0\.0\.1:1 does not answer any more"):
            ask()


def test_what_is_refused_is_one_line() -> None:
    refused = ClientError({"Error": {"Code": "ValidationException", "Message": "no"}}, "ListExecutions")
    with pytest.raises(StockflowError, match=r"the embedded AWS refuses: .*ValidationException"):
        show_status(local(Account(error=refused)), None)


def test_loopback_is_kept_off_a_proxy_beside_the_user_s_own_exceptions() -> None:
    exported = local(Account()).exports({"NO_PROXY": "intranet", "HOME": "/home/me"})
    assert exported["NO_PROXY"] == exported["no_proxy"] == "intranet,127.0.0.1,localhost"
    assert exported["STATE_MACHINE"] == "machine"
    assert "HOME" not in exported


def test_what_is_exported_names_the_buckets_as_the_phases_and_the_reading_commands_take_them() -> None:
    exported = local(Account()).exports({})
    named = {name: value for name, value in exported.items() if name.endswith("_BUCKET")}
    assert named == {
        "STOCKFLOW_MARKET_BUCKET": "bars",
        "STOCKFLOW_MODEL_BUCKET": "nets",
        "STOCKFLOW_PREDICTIONS_BUCKET": "forecasts",
    }

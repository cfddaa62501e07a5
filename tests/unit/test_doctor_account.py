"""`stockflow doctor --aws`: what is found out about an account, and what AWS refuses or does not answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, NoCredentialsError

from app.doctor import account
from app.doctor.check import Finding, examine, failure, good
from infra.context import load, written_context
from infra.root import ROOT
from infra.settings import Deployment
from tests.fakes import client_error


class Pages:
    """A paginator."""

    def __init__(self, pages: list[dict[str, Any]]) -> None:
        self.pages = pages

    def paginate(self, **call: Any) -> list[dict[str, Any]]:
        return self.pages


class Missing(ClientError):  # type: ignore[misc] # botocore is not typed
    """What a client raises for what is not there."""

    def __init__(self) -> None:
        super().__init__({"Error": {"Code": "NotThere", "Message": "it is not there"}}, "Get")


class Aws:
    """An account: applied quotas by code, others by name, and what is in use. refused: operations that are."""

    exceptions = SimpleNamespace(ParameterNotFound=Missing, NoSuchResourceException=Missing)

    def __init__(
        self, applied: Mapping[str, float], bootstrap: str | None = "21", refused: tuple[str, ...] = ()
    ) -> None:
        self.applied, self.bootstrap, self.refused = applied, bootstrap, refused
        self.named = {"ml.g4dn.xlarge for training job usage": 1.0}
        self.instances: list[dict[str, Any]] = []
        self.jobs: list[dict[str, Any]] = []
        self.clusters = 0

    def connect(self, service: str) -> Aws:
        return self

    def _ask(self, operation: str) -> None:
        if operation in self.refused:
            raise client_error("AccessDeniedException", operation)

    def get_parameter(self, **call: Any) -> dict[str, Any]:
        self._ask("GetParameter")
        assert call == {"Name": "/cdk-bootstrap/hnb659fds/version"}
        if self.bootstrap is None:
            raise Missing
        return {"Parameter": {"Value": self.bootstrap}}

    def get_service_quota(self, **call: Any) -> dict[str, Any]:
        self._ask("GetServiceQuota")
        if call["QuotaCode"] not in self.applied:
            raise Missing
        return {"Quota": {"Value": self.applied[call["QuotaCode"]]}}

    def get_aws_default_service_quota(self, **call: Any) -> dict[str, Any]:
        return {"Quota": {"Value": 5.0}}

    def get_paginator(self, operation: str) -> Pages:
        self._ask(operation)
        if operation == "list_service_quotas":
            named = [{"QuotaName": name, "QuotaCode": "L-9", "Value": value} for name, value in self.named.items()]
            return Pages([{"Quotas": []}, {"Quotas": named}])
        if operation == "describe_instances":
            return Pages([{"Reservations": [{"Instances": self.instances}]}])
        assert operation == "list_clusters"
        return Pages([{"Clusters": [{}] * self.clusters}])

    def list_training_jobs(self, **call: Any) -> dict[str, Any]:
        return {"TrainingJobSummaries": [{"TrainingJobName": str(number)} for number in range(len(self.jobs))]}

    def describe_training_job(self, **call: Any) -> dict[str, Any]:
        return self.jobs[int(call["TrainingJobName"])]


def judged(aws: Aws) -> dict[str, Finding]:
    return {result.name: result.finding for result in examine(account.account_checks(aws.connect))}


ENOUGH = {"L-1216C47A": 48.0, "L-1EE7982C": 500.0, "L-3032A538": 5.0}


def test_an_account_with_all_that_is_needed() -> None:
    findings = judged(Aws(ENOUGH))
    assert {finding.status for finding in findings.values()} == {"ok"}
    assert findings["EC2 quota"].found == (
        "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances: 48, 0 in use, 48 needed"
    )
    assert findings["SageMaker quota"].found == "ml.g4dn.xlarge for training job usage: 1, 0 in use, 1 needed"
    assert findings["Fargate quota"].found == "Fargate On-Demand vCPU resource count: 5, 5 needed"
    assert findings["CDK bootstrap"] == good("version 21")


def test_what_an_account_lacks_is_told_with_the_command_that_asks_for_it() -> None:
    aws = Aws({}, bootstrap=None)
    aws.named = {"ml.g4dn.xlarge for training job usage": 0.0}
    findings = judged(aws)
    assert findings["CDK bootstrap"].todo == "type `make bootstrap`"
    assert findings["EC2 quota"] == failure(
        "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances: 5, 0 in use, 48 needed",
        "type `aws service-quotas request-service-quota-increase --service-code ec2 --quota-code L-1216C47A"
        " --desired-value 48`",
    )
    assert findings["SageMaker quota"].todo.endswith("--service-code sagemaker --quota-code L-9 --desired-value 1`")
    assert {name for name, finding in findings.items() if finding.status == "ok"} == {"EMR quota", "Fargate quota"}


def test_what_is_in_use_is_taken_off() -> None:
    aws = Aws(ENOUGH)
    cores = {"CpuOptions": {"CoreCount": 4, "ThreadsPerCore": 2}}
    aws.instances = [
        {"InstanceType": "m5.2xlarge", **cores},
        {"InstanceType": "m5.2xlarge", "InstanceLifecycle": "spot", **cores},
        {"InstanceType": "g4dn.2xlarge", **cores},
    ]
    config = {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1}
    aws.jobs = [{"ResourceConfig": config}, {"ResourceConfig": config, "EnableManagedSpotTraining": True}]
    findings = judged(aws)
    assert findings["EC2 quota"].status == findings["SageMaker quota"].status == "warning"
    assert "48, 8 in use, 48 needed" in findings["EC2 quota"].found
    assert findings["EC2 quota"].todo.startswith("wait for what is in use, or type `aws service-quotas")
    assert findings["EC2 quota"].todo.endswith("--desired-value 56`")
    assert "1, 1 in use, 1 needed" in findings["SageMaker quota"].found


def test_what_may_not_be_asked_is_a_warning() -> None:
    findings = judged(Aws(ENOUGH, refused=("GetServiceQuota", "list_service_quotas", "GetParameter")))
    assert {finding.status for finding in findings.values()} == {"warning"}
    assert findings["EC2 quota"].found == "GetServiceQuota is refused: AccessDeniedException"
    unknown = judged(Aws(ENOUGH, refused=("describe_instances",)))["EC2 quota"]
    assert (unknown.status, unknown.found.rpartition(": ")[2]) == ("ok", "48, 48 needed")


def test_a_quota_that_is_not_there_and_an_old_bootstrap() -> None:
    aws = Aws(ENOUGH, bootstrap="5")
    aws.named = {}
    findings = judged(aws)
    assert findings["CDK bootstrap"] == failure("version 5, older than 6", "type `make bootstrap`")
    assert findings["SageMaker quota"].status == "warning"


def test_the_quotas_follow_from_the_deployment() -> None:
    changed = {
        "ingestion": {"instance_type": "m6i.2xlarge", "spot": True, "max_instances": 3},
        "batch_training": {"nodes": 4},
        "training": {"spot": True, "instances": 2},
    }
    needed = {quota.label: (quota.name, quota.needed) for quota in account.quotas(load(written_context() | changed))}
    assert needed["EC2 Spot"][1] == 24
    assert needed["EC2"][1] == 16
    assert needed["EC2 GPU"] == ("Running On-Demand G and VT instances", 16.0)
    assert needed["SageMaker"] == ("ml.g4dn.xlarge for spot training job usage", 2.0)


def test_the_feed_s_vcpus_are_those_of_its_job() -> None:
    job = re.search(r"^_FEED_VCPUS, _FEED_MIB = (\d+),", (ROOT / "infra" / "ingestion.py").read_text(), re.MULTILINE)
    assert job is not None
    needed = {quota.label: quota.needed for quota in account.quotas(Deployment())}
    assert needed["Fargate"] == Deployment().ingestion.dataset_vcpus + int(job[1])


class Sts:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def get_caller_identity(self) -> dict[str, str]:
        if self.error:
            raise self.error
        return {"Account": "123456789012", "Arn": "arn:aws:iam::123456789012:user/me"}


def identified(error: Exception | None = None, **environ: str) -> Finding:
    checks = {check.name: check for check in account.context_checks(environ, lambda service: Sts(error))}
    (result,) = examine([checks["AWS credentials"]])
    return result.finding


def test_who_asks() -> None:
    assert identified() == good("arn:aws:iam::123456789012:user/me of account 123456789012")
    elsewhere = identified(AWS_ENDPOINT_URL="http://127.0.0.1:5555")
    assert (elsewhere.status, elsewhere.todo) == ("warning", "type `unset AWS_ENDPOINT_URL`")
    for error in (NoCredentialsError(), client_error("ExpiredToken", "GetCallerIdentity")):
        assert "aws sts get-caller-identity" in identified(error).todo
    for gone in (EndpointConnectionError(endpoint_url="https://sts"), ConnectTimeoutError(endpoint_url="https://sts")):
        assert "see that this machine reaches AWS" in identified(gone).todo
        assert identified(gone).status == "failure"


def test_the_region() -> None:
    assert account.check_region("us-east-1") == good("us-east-1")
    assert account.check_region(None) == failure("no region is set", "type `export AWS_REGION=us-east-1`")
    assert account.check_region("eu-central-1").status == "warning"
    assert account.region_of({"AWS_REGION": "eu-west-1"}) == "eu-west-1"


def test_a_wrong_cdk_json_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "written_context", lambda: {"retian": True})
    checks = {check.name: check for check in account.context_checks({}, lambda service: Sts())}
    (result,) = examine([checks["cdk.json"]])
    assert (result.finding.status, result.finding.found) == ("failure", "unknown setting retian")

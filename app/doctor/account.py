"""What a deployment needs of the AWS account: credentials, a region, the CDK's bootstrap, quotas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnection

from app import contract
from app.doctor.check import Check, Finding, failure, good, warning
from infra.context import load, written_context
from infra.settings import Deployment

Connect = Callable[[str], Any]
"""A client of a service."""

_CALL_S, _QUOTA_S = 30.0, 90.0
_HOME_REGION = "us-east-1"
_BOOTSTRAP = "/cdk-bootstrap/hnb659fds/version"
_BOOTSTRAP_LEAST = 6
"""What the synthesised templates assert."""
_REFUSED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError")
_OFFLINE = "see that this machine reaches AWS: `curl https://sts.amazonaws.com`, and HTTPS_PROXY"
_FEED_VCPUS = 1
_STANDARD = frozenset("acdhimrtz")
"""First letters of the EC2 types that one quota of vCPUs counts together."""
_JOBS_LOOKED_AT = 20
_ACTIVE_CLUSTERS = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"]


@dataclass(frozen=True)
class Quota:
    """What a deployment needs of a quota.

    label: what it is of; name: as Service Quotas spells it; code: its code, empty where it is found by its name.
    in_use: how much of it is taken; None where that cannot be asked cheaply.
    """

    label: str
    service: str
    name: str
    code: str
    needed: float
    in_use: Callable[[Connect], float] | None = None


def connection(environ: Mapping[str, str]) -> Connect:
    """Clients of the region that the CDK would deploy to: boto3 itself does not know AWS_REGION."""
    config = Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 2})

    def connect(service: str) -> Any:
        return boto3.session.Session().client(service, region_name=region_of(environ) or _HOME_REGION, config=config)

    return connect


def region_of(environ: Mapping[str, str]) -> str | None:
    """The region that is set, in the environment or the AWS configuration."""
    return environ.get("AWS_REGION") or boto3.session.Session().region_name


def context_checks(environ: Mapping[str, str], connect: Connect) -> list[Check]:
    """Who asks, where, and for what: without these, nothing else can be asked."""
    return [
        Check("cdk.json", _CALL_S, _asking(check_deployment), "a network drive hangs: look at `df`"),
        Check("AWS region", _CALL_S, _asking(lambda: check_region(region_of(environ))), _OFFLINE),
        Check("AWS credentials", _CALL_S, _asking(partial(check_credentials, environ, connect)), _OFFLINE),
    ]


def account_checks(connect: Connect) -> list[Check]:
    """What the account has, for the deployment that cdk.json describes."""
    asked = [Check("CDK bootstrap", _CALL_S, _asking(partial(check_bootstrap, connect)), _OFFLINE)]
    for quota in quotas(load(written_context())):
        asked.append(Check(f"{quota.label} quota", _QUOTA_S, _asking(partial(check_quota, quota, connect)), _OFFLINE))
    return asked


def quotas(deployment: Deployment) -> Iterator[Quota]:
    """What the largest execution needs, and the Batch training jobs beside it."""
    fleet, cluster, nodes = deployment.ingestion, deployment.inference, deployment.batch_training
    fleet_vcpus = fleet.max_instances * fleet.vcpus
    on_demand = [
        (fleet.instance_type, 0 if fleet.spot else fleet_vcpus),
        (cluster.instance_type, (1 + cluster.core_instances) * cluster.vcpus),
        (nodes.instance_type, nodes.nodes * nodes.vcpus),
    ]
    standard = sum(vcpus for kind, vcpus in on_demand if kind[0] in _STANDARD)
    gpu = sum(vcpus for kind, vcpus in on_demand if kind[0] == "g")
    families = "Standard (A, C, D, H, I, M, R, T, Z)"
    yield Quota("EC2", "ec2", f"Running On-Demand {families} instances", "L-1216C47A", standard, _standard_vcpus)
    if fleet.spot:
        yield Quota("EC2 Spot", "ec2", f"All {families} Spot Instance Requests", "L-34B43A08", fleet_vcpus)
    if gpu:
        yield Quota("EC2 GPU", "ec2", "Running On-Demand G and VT instances", "L-DB2E81BA", gpu)
    training = deployment.training
    jobs = f"{training.instance_type} for {'spot ' * training.spot}training job usage"
    in_use = partial(_training_instances, training.instance_type, spot=training.spot)
    yield Quota("SageMaker", "sagemaker", jobs, "", training.instances, in_use)
    clusters = "The maximum number of active clusters can be run at the same time"
    yield Quota("EMR", "elasticmapreduce", clusters, "L-1EE7982C", 1, _active_clusters)
    jobs_vcpus = fleet.dataset_vcpus + _FEED_VCPUS
    yield Quota("Fargate", "fargate", "Fargate On-Demand vCPU resource count", "L-3032A538", jobs_vcpus)


def check_deployment() -> Finding:
    """Whether the settings of the deployment can be read; SettingsError says what is wrong."""
    deployment = load(written_context())
    fleet, training = deployment.ingestion, deployment.training
    return good(f"up to {fleet.max_instances} {fleet.instance_type}, {training.instances} {training.instance_type}")


def check_region(region: str | None) -> Finding:
    """Any region will do, but the training image's base is one region's."""
    if not region:
        return failure("no region is set", f"type `export AWS_REGION={_HOME_REGION}`")
    if region != _HOME_REGION and not load(written_context()).training.base_image:
        todo = "deploy with -c training.base_image=..., as docs/deploy.md says under What you need"
        return warning(f"{region}, while the training image starts from {_HOME_REGION}'s registry", todo)
    return good(region)


def check_credentials(environ: Mapping[str, str], connect: Connect) -> Finding:
    """Whether AWS knows who asks."""
    try:
        identity = connect("sts").get_caller_identity()
    except (NoConnection, HTTPClientError):  # that says nothing of the credentials
        raise
    except (BotoCoreError, ClientError) as exc:
        todo = "type `aws configure`, or `export AWS_PROFILE=NAME`, until `aws sts get-caller-identity` answers"
        return failure(str(exc).rstrip("."), todo)
    found = f"{identity['Arn']} of account {identity['Account']}"
    if endpoint := environ.get(contract.ENV_AWS_ENDPOINT_URL):
        return warning(f"{found} at {endpoint}, which is not AWS", f"type `unset {contract.ENV_AWS_ENDPOINT_URL}`")
    return good(found)


def check_bootstrap(connect: Connect) -> Finding:
    """Whether the CDK can deploy here."""
    ssm = connect("ssm")
    try:
        version = int(ssm.get_parameter(Name=_BOOTSTRAP)["Parameter"]["Value"])
    except ssm.exceptions.ParameterNotFound:
        return failure("this account is not prepared for the CDK in this region", "type `make bootstrap`")
    if version < _BOOTSTRAP_LEAST:
        return failure(f"version {version}, older than {_BOOTSTRAP_LEAST}", "type `make bootstrap`")
    return good(f"version {version}")


def check_quota(quota: Quota, connect: Connect) -> Finding:
    """Whether a quota is large enough, and enough of it is free."""
    applied = _applied(quota, connect("service-quotas"))
    if applied is None:
        return warning(f"{quota.name}: not to be found", "look in the console, under Service Quotas")
    code, value = applied
    used = None if quota.in_use is None else _in_use(quota.in_use, connect)
    in_use = "" if used is None else f", {used:g} in use"
    found = f"{quota.name}: {value:g}{in_use}, {quota.needed:g} needed"
    todo = (
        f"type `aws service-quotas request-service-quota-increase --service-code {quota.service} --quota-code {code}"
        f" --desired-value {quota.needed + (used or 0):g}`"
    )
    if value < quota.needed:
        return failure(found, todo)
    if value < quota.needed + (used or 0):
        return warning(found, f"wait for what is in use, or {todo}")
    return good(found)


def _applied(quota: Quota, client: Any) -> tuple[str, float] | None:
    """Code and value of a quota; of one that has no code here, by its name. None when there is none."""
    if not quota.code:
        pages = client.get_paginator("list_service_quotas").paginate(ServiceCode=quota.service)
        found = (one for page in pages for one in page["Quotas"] if one["QuotaName"] == quota.name)
        return next(((one["QuotaCode"], one["Value"]) for one in found), None)
    asked = {"ServiceCode": quota.service, "QuotaCode": quota.code}
    try:
        return quota.code, client.get_service_quota(**asked)["Quota"]["Value"]
    except client.exceptions.NoSuchResourceException:  # nobody ever asked for more than the default
        return quota.code, client.get_aws_default_service_quota(**asked)["Quota"]["Value"]


def _in_use(ask: Callable[[Connect], float], connect: Connect) -> float | None:
    try:
        return ask(connect)
    except (BotoCoreError, ClientError):  # the quota itself says enough
        return None


def _standard_vcpus(connect: Connect) -> float:
    """vCPUs of the instances on demand that run, of the types that are counted together."""
    states = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    pages = connect("ec2").get_paginator("describe_instances").paginate(Filters=states)
    vcpus = (
        one["CpuOptions"]["CoreCount"] * one["CpuOptions"]["ThreadsPerCore"]
        for page in pages
        for reservation in page["Reservations"]
        for one in reservation["Instances"]
        if one["InstanceType"][0] in _STANDARD and "InstanceLifecycle" not in one
    )
    return float(sum(vcpus))


def _training_instances(kind: str, connect: Connect, *, spot: bool) -> float:
    """Instances of a type in the training jobs that run."""
    client = connect("sagemaker")
    listed = client.list_training_jobs(StatusEquals="InProgress", MaxResults=_JOBS_LOOKED_AT)["TrainingJobSummaries"]
    jobs = [client.describe_training_job(TrainingJobName=job["TrainingJobName"]) for job in listed]
    alike = [job["ResourceConfig"] for job in jobs if job.get("EnableManagedSpotTraining", False) == spot]
    return float(sum(config.get("InstanceCount", 0) for config in alike if config.get("InstanceType") == kind))


def _active_clusters(connect: Connect) -> float:
    pages = connect("emr").get_paginator("list_clusters").paginate(ClusterStates=_ACTIVE_CLUSTERS)
    return float(sum(len(page["Clusters"]) for page in pages))


def _asking(ask: Callable[[], Finding]) -> Callable[[float], Finding]:
    """What AWS refuses, or that it does not answer, is a finding too. Calls have limits of their own."""

    def asked(limit_s: float) -> Finding:
        try:
            return ask()
        except ClientError as exc:
            code = str(exc.response.get("Error", {}).get("Code", ""))
            if code in _REFUSED:
                return warning(f"{exc.operation_name} is refused: {code}", "have it allowed, or look in the console")
            return failure(f"{exc.operation_name} fails: {code}", f"AWS says {exc}")
        except BotoCoreError as exc:
            return failure(str(exc).rstrip("."), _OFFLINE)

    return asked

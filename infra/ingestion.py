"""Phase I on AWS Batch: the fleet that fetches bars, and Fargate for the jobs beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aws_cdk import Duration, Size, Tags
from aws_cdk import aws_batch as batch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from constructs import Construct

from app import contract
from app.errors import StorageError, YahooError
from infra import nag
from infra.fleet import ManagedFleet, UnmanagedFleet
from infra.log_group import log_group
from infra.network import Network
from infra.root import ROOT
from infra.settings import IngestionSettings
from infra.states.jobs import Job
from infra.tagging import PHASE_TAG

_FEED_VCPUS, _FEED_MIB = 1, 2048
_FEED_ATTEMPTS = 2
"""A feed goes on where it was; two whole sessions are within the limit of an execution."""
_GIB_PER_VCPU = 4
_MAX_FARGATE_VCPUS = 32


@dataclass(frozen=True)
class JobRoles:
    """What each kind of job may do; the stack grants."""

    ingest: iam.Role
    dataset: iam.Role
    feed: iam.Role


class Ingestion(Construct):
    """Queues and job definitions. place: environment that names the buckets.

    fleet_group: name of the Auto Scaling group that the state machine scales; None where Batch does it.
    submittable: ARNs of what a job is submitted with; batch_role: with which Batch starts what a job needs.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: IngestionSettings,
        network: Network,
        place: Mapping[str, str],
        log_days: int,
        feed_timeout_min: int,
    ) -> None:
        super().__init__(scope, construct_id)
        self._place = place
        self._image = ecr_assets.DockerImageAsset(
            self,
            "Image",
            directory=str(ROOT),
            file="docker/ingest/Dockerfile",
            platform=ecr_assets.Platform.LINUX_AMD64,
        )
        self._log_group = log_group(self, "Logs", days=log_days)
        self.roles = JobRoles(*(self._role(name) for name in ("Ingest", "Dataset", "Feed")))
        self.batch_role = batch_role = _service_role(self, "BatchRole")
        # Names of their own: CloudFormation cannot make a managed environment of an unmanaged one, nor move its queue.
        kind, name = (ManagedFleet, "Managed") if settings.managed else (UnmanagedFleet, "Unmanaged")
        fleet = kind(self, f"{name}Fleet", settings=settings, network=network, batch_role=batch_role, log_days=log_days)
        self.fleet_group = fleet.group_name
        fargate = batch.FargateComputeEnvironment(
            self,
            "Fargate",
            vpc=network.vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC),
            security_groups=[network.jobs],
            maxv_cpus=_MAX_FARGATE_VCPUS,
            service_role=batch_role,
            replace_compute_environment=True,
        )
        fleet_queue = _queue(self, f"{name}Queue", fleet.environment)
        fargate_queue = _queue(self, "FargateQueue", fargate)
        self.queues = (fleet_queue, fargate_queue)
        shard = self._on_fleet("Shard", self.roles.ingest, settings)
        dataset = self._on_fargate(
            "Dataset", self.roles.dataset, settings.dataset_vcpus, settings.dataset_vcpus * _GIB_PER_VCPU * 1024
        )
        feed = self._on_fargate("Feed", self.roles.feed, _FEED_VCPUS, _FEED_MIB)
        limit_s = settings.timeout_min * 60
        self.shards = _job(self, "ShardJob", "ingest", shard, fleet_queue, limit_s, settings.attempts)
        self.dataset = _job(self, "DatasetJob", "dataset", dataset, fargate_queue, limit_s, settings.attempts)
        self.feed = _job(self, "FeedJob", "serve", feed, fargate_queue, feed_timeout_min * 60, _FEED_ATTEMPTS)
        jobs = (self.shards, self.dataset, self.feed)
        for container in (shard, dataset, feed):
            reason = "ecr:GetAuthorizationToken knows no resources."
            nag.acknowledge(container.execution_role, "AwsSolutions-IAM5", reason, "Resource::*")
        self.submittable = sorted({arn for job in jobs for arn in (job.queue, job.definition)})

    def _role(self, name: str) -> iam.Role:
        return iam.Role(self, f"{name}Role", assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"))

    def _on_fleet(self, name: str, role: iam.Role, settings: IngestionSettings) -> batch.EcsEc2ContainerDefinition:
        return batch.EcsEc2ContainerDefinition(
            self,
            name,
            image=ecs.ContainerImage.from_docker_image_asset(self._image),
            cpu=settings.shard_vcpus,
            memory=Size.mebibytes(settings.shard_memory_mib),
            job_role=role,
            environment={**self._place, contract.ENV_SHARD_ATTEMPTS: str(settings.attempts)},
            command=["ingest"],
            logging=self._logging(name),
        )

    def _on_fargate(self, name: str, role: iam.Role, vcpus: int, mib: int) -> batch.EcsFargateContainerDefinition:
        return batch.EcsFargateContainerDefinition(
            self,
            name,
            image=ecs.ContainerImage.from_docker_image_asset(self._image),
            cpu=vcpus,
            memory=Size.mebibytes(mib),
            job_role=role,
            environment=dict(self._place),
            command=[name.lower()],
            logging=self._logging(name),
            assign_public_ip=True,  # there is no NAT gateway; the security group lets nothing in
            fargate_platform_version=ecs.FargatePlatformVersion.LATEST,
        )

    def _logging(self, name: str) -> ecs.LogDriver:
        return ecs.LogDriver.aws_logs(stream_prefix=name.lower(), log_group=self._log_group)


def _service_role(scope: Construct, construct_id: str) -> iam.Role:
    """The role with which Batch starts containers and, in a managed environment, instances."""
    policy = iam.ManagedPolicy.from_aws_managed_policy_name("service-role/AWSBatchServiceRole")
    principal = iam.ServicePrincipal("batch.amazonaws.com")
    role = iam.Role(scope, construct_id, assumed_by=principal, managed_policies=[policy])
    nag.acknowledge_managed_policy(role, policy, "AWS's policy for Batch, kept up with the service by AWS.")
    return role


def _queue(scope: Construct, construct_id: str, environment: batch.IComputeEnvironment) -> batch.JobQueue:
    ordered = batch.OrderedComputeEnvironment(compute_environment=environment, order=1)
    return batch.JobQueue(scope, construct_id, compute_environments=[ordered])


def _job(
    scope: Construct,
    construct_id: str,
    phase: str,
    container: batch.IEcsContainerDefinition,
    queue: batch.JobQueue,
    timeout_s: int,
    attempts: int,
) -> Job:
    """A job that is tried again when the instance went away, S3 did not answer or Yahoo refused; else never."""
    passing = [batch.Reason.custom(on_exit_code=str(error.exit_code)) for error in (StorageError, YahooError)]
    retries = [
        batch.RetryStrategy.of(batch.Action.RETRY, reason)
        for reason in (batch.Reason.SPOT_INSTANCE_RECLAIMED, batch.Reason.CANNOT_PULL_CONTAINER, *passing)
    ]
    definition = batch.EcsJobDefinition(
        scope,
        construct_id,
        container=container,
        retry_attempts=attempts,
        retry_strategies=[*retries, batch.RetryStrategy.of(batch.Action.EXIT, batch.Reason.custom(on_reason="*"))]
        if attempts > 1
        else None,
        timeout=Duration.seconds(timeout_s),
        propagate_tags=True,
    )
    Tags.of(definition).add(PHASE_TAG, phase)
    queue_wait_s = 1800
    return Job(queue.job_queue_arn, definition.job_definition_arn, attempts * timeout_s + queue_wait_s)

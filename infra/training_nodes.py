"""Phase II on AWS Batch: multi-node parallel jobs, by which the original's runs on one to four nodes are repeated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from aws_cdk import CfnOutput, Duration, Size, Stack
from aws_cdk import aws_batch as batch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra import nag
from infra.fleet import managed_environment
from infra.log_group import log_group
from infra.network import Network
from infra.settings import BatchTrainingSettings

_DISK_GIB = 100
"""The image alone takes some 25 of it."""
_SHARED_MEMORY_GIB = 1
"""By which ranks of a node reach each other; a container has 64 MiB of it by default."""


class TrainingNodes(Construct):
    """A queue, and a job definition for any number of nodes up to settings.nodes. role: of its jobs; the stack grants.

    No instance runs while there is no job. The nodes have no public address of their own: they reach S3 by the
    network's gateway endpoint, each other by the group `Nodes`, and nothing else.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: BatchTrainingSettings,
        timeout_min: int,
        network: Network,
        batch_role: iam.Role,
        image: ecr_assets.DockerImageAsset,
        place: Mapping[str, str],
        log_days: int,
    ) -> None:
        super().__init__(scope, construct_id)
        self.role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"))
        container = self._container(settings, image, place, log_days)
        self.definition = batch.MultiNodeJobDefinition(
            self,
            "Job",
            containers=[batch.MultiNodeContainer(container=container, start_node=0, end_node=settings.nodes - 1)],
            main_node=0,
            instance_type=ec2.InstanceType(settings.instance_type),
            timeout=Duration.minutes(timeout_min),
            propagate_tags=True,
        )
        # A job may ask for fewer nodes where the range has no end.
        resource = cast("batch.CfnJobDefinition", self.definition.node.default_child)
        resource.add_property_override("NodeProperties.NodeRangeProperties.0.TargetNodes", "0:")
        environment = self._environment(settings, network, batch_role)
        ordered = batch.OrderedComputeEnvironment(compute_environment=environment, order=1)
        self.queue = batch.JobQueue(self, "Queue", compute_environments=[ordered])
        for name, arn in (
            ("TrainingQueue", self.queue.job_queue_arn),
            ("TrainingJob", self.definition.job_definition_arn),
        ):
            CfnOutput(self, name, value=arn).override_logical_id(name)

    def _container(
        self,
        settings: BatchTrainingSettings,
        image: ecr_assets.DockerImageAsset,
        place: Mapping[str, str],
        log_days: int,
    ) -> batch.EcsEc2ContainerDefinition:
        logs = log_group(self, "Logs", days=log_days)
        container = batch.EcsEc2ContainerDefinition(
            self,
            "Node",
            image=ecs.ContainerImage.from_docker_image_asset(image),
            cpu=settings.vcpus,
            memory=Size.mebibytes(settings.memory_mib),
            gpu=settings.gpus or None,
            job_role=self.role,
            # Without a region boto3 asks S3 at an address that the gateway endpoint may not lead to.
            environment={**place, "AWS_DEFAULT_REGION": Stack.of(self).region},
            command=["python", "-m", "app.training.batch_node"],
            linux_parameters=batch.LinuxParameters(
                self,
                "Linux",
                init_process_enabled=True,
                shared_memory_size=Size.gibibytes(_SHARED_MEMORY_GIB),
            ),
            logging=ecs.LogDriver.aws_logs(stream_prefix="train", log_group=logs),
        )
        reason = "ecr:GetAuthorizationToken knows no resources."
        nag.acknowledge(container.execution_role, "AwsSolutions-IAM5", reason, "Resource::*")
        return container

    def _environment(
        self, settings: BatchTrainingSettings, network: Network, batch_role: iam.Role
    ) -> batch.ManagedEc2EcsComputeEnvironment:
        nodes = ec2.SecurityGroup(
            self, "Nodes", vpc=network.vpc, description="Nodes of a training job: each other", allow_all_outbound=False
        )
        nodes.add_ingress_rule(nodes, ec2.Port.all_tcp(), "SSH, MPI and NCCL")
        nodes.add_egress_rule(nodes, ec2.Port.all_tcp(), "SSH, MPI and NCCL")
        kind = batch.EcsMachineImageType
        return managed_environment(
            self,
            network=network,
            instance_type=settings.instance_type,
            max_vcpus=settings.nodes * settings.vcpus,
            disk_gib=_DISK_GIB,
            batch_role=batch_role,
            security_groups=[nodes],
            images=[batch.EcsMachineImage(image_type=kind.ECS_AL2023_NVIDIA if settings.gpus else kind.ECS_AL2023)],
        )

"""The instances that ingest runs on: scaled by the state machine where Batch refuses the type, else by Batch."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Fn, Stack
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_batch as batch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import custom_resources as cr
from constructs import Construct

from infra import nag
from infra.log_group import log_group
from infra.network import Network
from infra.settings import IngestionSettings

_DISK_GIB = 40
_HOP_LIMIT = 1
"""IMDSv2 answers the host alone, not a container behind a bridge."""


class UnmanagedFleet(Construct):
    """An Auto Scaling group whose instances join the ECS cluster of an unmanaged compute environment.

    Batch makes that cluster itself and CloudFormation has no attribute for it: it is looked up while deploying.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: IngestionSettings,
        network: Network,
        batch_role: iam.Role,
        log_days: int,
    ) -> None:
        super().__init__(scope, construct_id)
        self._log_days = log_days
        self.environment: batch.IComputeEnvironment = batch.UnmanagedComputeEnvironment(
            self, "Environment", service_role=batch_role
        )
        start = ec2.UserData.for_linux()
        start.add_commands(
            f'echo "ECS_CLUSTER={self._cluster_name()}" >> /etc/ecs/ecs.config',
        )
        template = ec2.LaunchTemplate(
            self,
            "LaunchTemplate",
            instance_type=ec2.InstanceType(settings.instance_type),
            machine_image=ecs.EcsOptimizedImage.amazon_linux2023(),
            user_data=start,
            role=_instance_role(self),
            security_group=network.jobs,
            associate_public_ip_address=True,  # there is no NAT gateway; the security group lets nothing in
            require_imdsv2=True,
            http_put_response_hop_limit=_HOP_LIMIT,
            block_devices=[_encrypted_disk(_DISK_GIB)],
        )
        group = autoscaling.AutoScalingGroup(
            self,
            "Group",
            vpc=network.vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC),
            launch_template=template,
            min_capacity=0,
            max_capacity=settings.max_instances,
            group_metrics=[autoscaling.GroupMetrics.all()],
        )
        reason = "The state machine scales the group and an alarm watches it: a mail for each instance adds nothing."
        nag.acknowledge(group, "AwsSolutions-AS3", reason)
        self.group_name: str | None = group.auto_scaling_group_name

    def _cluster_name(self) -> str:
        arn = self.environment.compute_environment_arn
        path = "computeEnvironments.0.ecsClusterArn"
        lookup = cr.AwsCustomResource(
            self,
            "Cluster",
            on_update=cr.AwsSdkCall(
                service="Batch",
                action="DescribeComputeEnvironments",
                parameters={"computeEnvironments": [arn]},
                output_paths=[path],
                physical_resource_id=cr.PhysicalResourceId.of("ecs-cluster"),
            ),
            policy=cr.AwsCustomResourcePolicy.from_statements(
                [iam.PolicyStatement(actions=["batch:DescribeComputeEnvironments"], resources=["*"])]
            ),
            install_latest_aws_sdk=False,
            log_group=log_group(self, "ClusterLogs", days=self._log_days),
        )
        nag.acknowledge(lookup, "AwsSolutions-IAM5", "Batch's describe actions know no resources.", "Resource::*")
        provider = Stack.of(self).node.find_child(f"AWS{cr.AwsCustomResource.PROVIDER_FUNCTION_UUID.replace('-', '')}")
        reason = "The CDK's own function for look-ups: it writes its log and does what the policy beside it allows."
        nag.acknowledge_managed_policy(provider, _basic_execution(), reason)
        return Fn.select(1, Fn.split("/", lookup.get_response_field(path)))


class ManagedFleet(Construct):
    """A managed compute environment: Batch starts and ends the instances."""

    group_name: str | None = None

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: IngestionSettings,
        network: Network,
        batch_role: iam.Role,
        log_days: int,
    ) -> None:
        super().__init__(scope, construct_id)
        self.environment: batch.IComputeEnvironment = managed_environment(
            self,
            network=network,
            instance_type=settings.instance_type,
            spot=settings.spot,
            max_vcpus=settings.max_instances * settings.vcpus,
            disk_gib=_DISK_GIB,
            batch_role=batch_role,
        )


def managed_environment(
    scope: Construct,
    *,
    network: Network,
    instance_type: str,
    max_vcpus: int,
    disk_gib: int,
    batch_role: iam.Role,
    spot: bool = False,
    security_groups: Sequence[ec2.ISecurityGroup] = (),
    images: Sequence[batch.EcsMachineImage] | None = None,
) -> batch.ManagedEc2EcsComputeEnvironment:
    """A managed compute environment of one EC2 type, empty while there is no job.

    security_groups: beside that of all jobs; images: of the instances, None for Batch's own choice.
    """
    return batch.ManagedEc2EcsComputeEnvironment(
        scope,
        "Environment",
        vpc=network.vpc,
        vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC),
        security_groups=[network.jobs, *security_groups],
        instance_types=[ec2.InstanceType(instance_type)],
        use_optimal_instance_classes=False,
        images=images,
        spot=spot,
        minv_cpus=0,
        maxv_cpus=max_vcpus,
        instance_role=_instance_role(scope),
        launch_template=ec2.LaunchTemplate(
            scope,
            "LaunchTemplate",
            require_imdsv2=True,
            http_put_response_hop_limit=_HOP_LIMIT,
            block_devices=[_encrypted_disk(disk_gib)],
        ),
        service_role=batch_role,
        replace_compute_environment=True,  # Batch changes little of one that has a service role of its own
    )


def _basic_execution() -> iam.IManagedPolicy:
    return iam.ManagedPolicy.from_aws_managed_policy_name("service-role/AWSLambdaBasicExecutionRole")


def _instance_role(scope: Construct) -> iam.Role:
    """What the ECS agent of an instance may do; the jobs have roles of their own."""
    policy = iam.ManagedPolicy.from_aws_managed_policy_name("service-role/AmazonEC2ContainerServiceforEC2Role")
    role = iam.Role(
        scope, "InstanceRole", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"), managed_policies=[policy]
    )
    nag.acknowledge_managed_policy(role, policy, "AWS's policy for the ECS agent, kept up with the agent by AWS.")
    return role


def _encrypted_disk(gib: int) -> ec2.BlockDevice:
    """The system's disk of an instance."""
    disk = ec2.BlockDeviceVolume.ebs(
        gib, encrypted=True, volume_type=ec2.EbsDeviceVolumeType.GP3, delete_on_termination=True
    )
    return ec2.BlockDevice(device_name="/dev/xvda", volume=disk)

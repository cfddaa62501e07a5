"""Phase II on SageMaker: the image with Horovod, and the role of the training jobs."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra import nag
from infra.root import ROOT
from infra.settings import TrainingSettings
from infra.states.train import TrainingJob
from infra.storage import Storage

_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
"""SageMaker's own, shared by all training jobs of an account."""


class Training(Construct):
    """role: what a training job may do (the stack grants); job: what is the same for all of them; image: its own."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        deployment: str,
        settings: TrainingSettings,
        storage: Storage,
        place: Mapping[str, str],
    ) -> None:
        super().__init__(scope, construct_id)
        self.image = image = ecr_assets.DockerImageAsset(
            self,
            "Image",
            directory=str(ROOT),
            file="docker/training/Dockerfile",
            platform=ecr_assets.Platform.LINUX_AMD64,
            build_args={"BASE": settings.base_image} if settings.base_image else None,
        )
        self.role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"))
        image.repository.grant_pull(self.role)
        nag.acknowledge(
            *(self.role, "AwsSolutions-IAM5", "Actions that know no resources; metrics only in SageMaker's namespace."),
            "Resource::*",
        )
        self.job = TrainingJob(
            deployment=deployment,
            role=self.role.role_arn,
            image=image.image_uri,
            model_bucket=storage.model.bucket_name,
            place=place,
            spot=settings.spot,
            encrypt_traffic=settings.encrypt_traffic,
            volume_gib=settings.volume_gib,
            max_runtime_s=settings.max_runtime_min * 60,
        )
        log_arn = Stack.of(self).format_arn(
            service="logs",
            resource="log-group",
            resource_name=f"{_LOG_GROUP}*",
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        nag.acknowledge(self.role, "AwsSolutions-IAM5", "SageMaker names the streams.", f"Resource::{log_arn}")
        self.role.add_to_policy(
            iam.PolicyStatement(
                actions=["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                resources=[log_arn],
            )
        )
        self.role.add_to_policy(
            iam.PolicyStatement(
                actions=["cloudwatch:PutMetricData"],
                resources=["*"],  # the action knows no resources; the condition narrows it
                conditions={"StringLike": {"cloudwatch:namespace": ["/aws/sagemaker/*", "aws/sagemaker/*"]}},
            )
        )

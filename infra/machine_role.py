"""What the state machine itself may do: start and stop what its tasks name, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_

from infra import nag
from infra.inference import Inference
from infra.ingestion import Ingestion
from infra.training import Training

_EVENT_RULES = (
    "StepFunctionsGetEventsForBatchJobsRule",
    "StepFunctionsGetEventsForSageMakerTrainingJobsRule",
    "StepFunctionsGetEventForEMRRunJobFlowRule",
    "StepFunctionsGetEventForEMRAddJobFlowStepsRule",
)
"""Managed rules by whose events Step Functions learns that a `.sync` job has ended."""


def allow_tasks(
    role: iam.Role,
    *,
    functions: Iterable[lambda_.Function],
    ingestion: Ingestion,
    training: Training,
    inference: Inference,
) -> None:
    """Grant what the definition's own tasks need."""
    stack = Stack.of(role)
    jobs = stack.format_arn(service="batch", resource="job", resource_name="*")
    training_jobs = stack.format_arn(service="sagemaker", resource="training-job", resource_name="*")
    clusters = stack.format_arn(service="elasticmapreduce", resource="cluster", resource_name="*")
    _allow(role, ["lambda:InvokeFunction"], [function.function_arn for function in functions])
    _allow(role, ["batch:SubmitJob"], [*ingestion.submittable])
    _allow(role, ["batch:TerminateJob"], [jobs])
    _allow(role, ["batch:DescribeJobs", "elasticmapreduce:RunJobFlow"], ["*"])
    _allow(
        role,
        ["sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob"],
        [training_jobs],
    )
    _allow(role, ["sagemaker:AddTags", "sagemaker:ListTags"], [training_jobs])
    _allow(
        role,
        [
            f"elasticmapreduce:{action}"
            for action in (
                "AddJobFlowSteps",
                "AddTags",
                "CancelSteps",
                "DescribeCluster",
                "DescribeStep",
                "PutAutoTerminationPolicy",
                "TerminateJobFlows",
            )
        ],
        [clusters],
    )
    reason = "Jobs and clusters have names and ids only once they are made; other actions know no resources."
    nag.acknowledge(
        *(role, "AwsSolutions-IAM5", reason),
        *("Resource::*", *(f"Resource::{arn}" for arn in (jobs, training_jobs, clusters))),
    )
    rules = [stack.format_arn(service="events", resource="rule", resource_name=name) for name in _EVENT_RULES]
    _allow(role, ["events:PutTargets", "events:PutRule", "events:DescribeRule"], rules)
    _allow_first_cluster(role)
    if ingestion.fleet_group:
        allow_scaling(role, ingestion.fleet_group)
    _pass(role, training.role, "sagemaker.amazonaws.com")
    _pass(role, inference.service_role, "elasticmapreduce.amazonaws.com")
    _pass(role, inference.role, "ec2.amazonaws.com")


def _allow_first_cluster(role: iam.Role) -> None:
    """The first EMR cluster of an account makes the role with which EMR tidies up after clusters."""
    arn = Stack.of(role).format_arn(
        service="iam",
        region="",
        resource="role",
        resource_name="aws-service-role/elasticmapreduce.amazonaws.com/AWSServiceRoleForEMRCleanup",
    )
    role.add_to_policy(
        iam.PolicyStatement(
            actions=["iam:CreateServiceLinkedRole"],
            resources=[arn],
            conditions={"StringEquals": {"iam:AWSServiceName": "elasticmapreduce.amazonaws.com"}},
        )
    )


def allow_scaling(role: iam.Role, group: str) -> None:
    """Allow setting the capacity of one Auto Scaling group."""
    arn = Stack.of(role).format_arn(
        service="autoscaling",
        resource="autoScalingGroup",
        resource_name=f"*:autoScalingGroupName/{group}",
        arn_format=ArnFormat.COLON_RESOURCE_NAME,
    )
    _allow(role, ["autoscaling:SetDesiredCapacity"], [arn])
    reason = "A group's ARN holds an id that CloudFormation does not tell; its name is unique."
    nag.acknowledge(role, "AwsSolutions-IAM5", reason, f"Resource::{arn}")


def _allow(role: iam.Role, actions: Sequence[str], resources: Sequence[str]) -> None:
    role.add_to_policy(iam.PolicyStatement(actions=list(actions), resources=list(resources)))


def _pass(role: iam.Role, passed: iam.IRole, *services: str) -> None:
    role.add_to_policy(
        iam.PolicyStatement(
            actions=["iam:PassRole"],
            resources=[passed.role_arn],
            conditions={"StringEquals": {"iam:PassedToService": list(services)}},
        )
    )

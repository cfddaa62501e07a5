"""AWS Batch."""

from __future__ import annotations

from typing import Final

from embedded.aws.deployment.resources import Made, Rule, Wanted


def _compute_environment(wanted: Wanted) -> Made:
    properties = wanted.properties.without("ReplaceComputeEnvironment", "UpdatePolicy")  # both are about updates
    properties |= {"ComputeEnvironmentName": wanted.named("ComputeEnvironmentName")}
    properties["Type"] = properties["Type"].upper()
    arn = wanted.api.call("batch", "create_compute_environment", properties)["computeEnvironmentArn"]
    return Made(arn, {"ComputeEnvironmentArn": arn})


def _job_queue(wanted: Wanted) -> Made:
    properties = {"State": "ENABLED", **wanted.properties, "JobQueueName": wanted.named("JobQueueName")}
    arn = wanted.api.call("batch", "create_job_queue", properties)["jobQueueArn"]
    return Made(arn, {"JobQueueArn": arn})


def _job_definition(wanted: Wanted) -> Made:
    properties = {**wanted.properties, "JobDefinitionName": wanted.named("JobDefinitionName")}
    arn = wanted.api.call("batch", "register_job_definition", properties)["jobDefinitionArn"]
    return Made(arn, {"JobDefinitionArn": arn})


RULES: Final = (
    Rule(
        "batch-compute-environment",
        "AWS::Batch::ComputeEnvironment",
        "the type has to be in capitals and have resources, no attribute can be asked for, and tags are lost",
        _compute_environment,
    ),
    Rule("batch-job-queue", "AWS::Batch::JobQueue", "no attribute can be asked for, and tags are lost", _job_queue),
    Rule(
        "batch-job-definition",
        "AWS::Batch::JobDefinition",
        "timeout, platform and the passing on of tags are lost, and keys of maps change their capitals",
        _job_definition,
    ),
)

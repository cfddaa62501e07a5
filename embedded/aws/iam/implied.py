"""What a request needs besides its own action: roles that it hands to a service, tags, keys, a service's first use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from embedded.aws.iam import resources
from embedded.aws.iam.checks import Check
from embedded.aws.iam.readers import Parameters, resource_arns
from embedded.aws.iam.roles import Roles, tag_map
from embedded.aws.iam.tables import Asked


class Passed(NamedTuple):
    """A role that operations hand on. role: where it stands in the request; service: who gets it."""

    role: str
    service: str
    operations: str


PASSED: Mapping[str, Sequence[Passed]] = {
    "autoscaling": (
        Passed("{IamInstanceProfile|profile}", "ec2.amazonaws.com", "CreateLaunchConfiguration"),
        Passed("{RoleARN|role}", "autoscaling.amazonaws.com", "PutLifecycleHook"),
    ),
    "batch": (
        Passed("{containerProperties.jobRoleArn|role}", "ecs-tasks.amazonaws.com", "RegisterJobDefinition"),
        Passed("{containerProperties.executionRoleArn|role}", "ecs-tasks.amazonaws.com", "RegisterJobDefinition"),
        Passed("{serviceRole|role}", "batch.amazonaws.com", "CreateComputeEnvironment UpdateComputeEnvironment"),
        Passed("{computeResources.instanceRole|profile}", "ec2.amazonaws.com", "CreateComputeEnvironment"),
    ),
    "ec2": (Passed("{IamInstanceProfile.Arn,IamInstanceProfile.Name|profile}", "ec2.amazonaws.com", "RunInstances"),),
    "elasticmapreduce": (
        Passed("{ServiceRole|role}", "elasticmapreduce.amazonaws.com", "RunJobFlow"),
        Passed("{JobFlowRole|profile}", "ec2.amazonaws.com", "RunJobFlow"),
        Passed("{AutoScalingRole|role}", "application-autoscaling.amazonaws.com", "RunJobFlow"),
    ),
    "events": (
        Passed("{RoleArn|role}", "events.amazonaws.com", "PutRule"),
        Passed("{Targets[].RoleArn|role}", "events.amazonaws.com", "PutTargets"),
    ),
    "glue": (Passed("{Role|role}", "glue.amazonaws.com", "CreateJob CreateCrawler UpdateCrawler"),),
    "lambda": (Passed("{Role|role}", "lambda.amazonaws.com", "CreateFunction UpdateFunctionConfiguration"),),
    "logs": (Passed("{roleArn|role}", "logs.amazonaws.com", "PutSubscriptionFilter PutDestination"),),
    "sagemaker": (
        Passed("{RoleArn|role}", "sagemaker.amazonaws.com", "CreateTrainingJob CreateProcessingJob CreatePipeline"),
        Passed("{RoleArn|role}", "sagemaker.amazonaws.com", "UpdatePipeline CreateNotebookInstance"),
        Passed("{ExecutionRoleArn|role}", "sagemaker.amazonaws.com", "CreateModel"),
        Passed("{TrainingJobDefinition.RoleArn|role}", "sagemaker.amazonaws.com", "CreateHyperParameterTuningJob"),
    ),
    "scheduler": (Passed("{Target.RoleArn|role}", "scheduler.amazonaws.com", "CreateSchedule UpdateSchedule"),),
    "states": (Passed("{roleArn|role}", "states.amazonaws.com", "CreateStateMachine UpdateStateMachine"),),
}
"""iam:PassRole is asked for each of these roles, with the service in iam:PassedToService."""

TAGGING: Mapping[str, tuple[str, str]] = {
    "athena": ("Tags", "TagResource"),
    "batch": ("tags", "TagResource"),
    "cloudwatch": ("Tags", "TagResource"),
    "ecr": ("tags", "TagResource"),
    "elasticmapreduce": ("Tags", "AddTags"),
    "events": ("Tags", "TagResource"),
    "glue": ("Tags", "TagResource"),
    "kms": ("Tags", "TagResource"),
    "lambda": ("Tags", "TagResource"),
    "logs": ("tags", "TagResource"),
    "sagemaker": ("Tags", "AddTags"),
    "scheduler": ("Tags", "TagResource"),
    "sns": ("Tags", "TagResource"),
    "sqs": ("tags", "TagQueue"),
    "states": ("tags", "TagResource"),
}
"""By prefix: the parameter with the tags of what an operation makes, and the action that tagging it needs."""
_NOT_YET_NAMED = {
    "RunJobFlow": "cluster/*",
    "SubmitJob": "job/*",
    "CreateKey": "key/*",
}
"""What is made under a name that the request does not know; other operations name what they make first."""
_ENCRYPTING = {"Publish": ("GenerateDataKey", "Decrypt"), "PublishBatch": ("GenerateDataKey", "Decrypt")} | {
    "SendMessage": ("GenerateDataKey", "Decrypt"),
    "SendMessageBatch": ("GenerateDataKey", "Decrypt"),
    "ReceiveMessage": ("Decrypt",),
}
_FIRST_CLUSTER = "elasticmapreduce.amazonaws.com"


def request_tags(parameters: Parameters) -> dict[str, str | Sequence[str]]:
    """The context keys of the tags that a request sets or takes away."""
    listed = parameters.get("Tags") or parameters.get("tags") or {}
    plain = isinstance(listed, Mapping) or all(isinstance(one, Mapping) for one in listed)
    tags = tag_map(listed) if plain else {}  # UntagLogGroup has the keys alone under this name
    keys = parameters.get("TagKeys") or parameters.get("tagKeys") or list(tags) or listed
    values: dict[str, str | Sequence[str]] = {f"aws:RequestTag/{name}": value for name, value in tags.items()}
    return {**values, "aws:TagKeys": [str(key) for key in keys]} if keys else values


def implied_checks(
    prefix: str, operation: str, parameters: Parameters, region: str, own: Sequence[Check], roles: Roles
) -> Iterator[Check]:
    """What an operation needs besides its own checks."""
    yield from _passed_roles(prefix, operation, parameters, region)
    yield from _tagging(prefix, operation, parameters, region, own)
    if prefix in {"sns", "sqs"} and operation in _ENCRYPTING:
        yield from _message_keys(prefix, _ENCRYPTING[operation], own, region)
    if operation == "RunJobFlow":
        yield from _cluster(parameters, region, roles)


def _passed_roles(prefix: str, operation: str, parameters: Parameters, region: str) -> Iterator[Check]:
    for passed in PASSED.get(prefix, ()):
        if operation in passed.operations.split():
            for role in resource_arns(Asked("iam:PassRole", passed.role, optional=True), parameters, region):
                yield Check("iam:PassRole", role, {"iam:PassedToService": passed.service})


def _tagging(prefix: str, operation: str, parameters: Parameters, region: str, own: Sequence[Check]) -> Iterator[Check]:
    parameter, action = TAGGING.get(prefix, ("", ""))
    if not parameters.get(parameter) or "Tag" in operation:
        return
    name = _NOT_YET_NAMED.get(operation)
    resource = own[0].resource if name is None else resources.arn(prefix, region, name)
    yield Check(f"{prefix}:{action}", resource, {})


def _message_keys(prefix: str, verbs: Iterable[str], own: Sequence[Check], region: str) -> Iterator[Check]:
    """Who sends to an encrypted topic or queue uses its key."""
    name = own[0].resource
    if prefix == "sns":
        held: Any = resources.backend("sns", region).topics.get(name)
    else:
        held = resources.backend("sqs", region).queues.get(name.rpartition(":")[2])
    key = resources.own_key(getattr(held, "kms_master_key_id", None), region)
    if key is not None:
        yield from (Check(f"kms:{verb}", key, {"kms:ViaService": f"{prefix}.{region}.amazonaws.com"}) for verb in verbs)


def _cluster(parameters: Parameters, region: str, roles: Roles) -> Iterator[Check]:
    """A cluster's own policies, and the role with which EMR tidies up: an account's first cluster makes it."""
    clusters = resources.arn("elasticmapreduce", region, "cluster/*")
    for name in ("AutoTerminationPolicy", "ManagedScalingPolicy"):
        if parameters.get(name):
            yield Check(f"elasticmapreduce:Put{name}", clusters, {})
    if not any(f"/aws-service-role/{_FIRST_CLUSTER}/" in role.arn for role in roles.all()):
        arn = resources.arn("iam", region, f"role/aws-service-role/{_FIRST_CLUSTER}/AWSServiceRoleForEMRCleanup")
        yield Check("iam:CreateServiceLinkedRole", arn, {"iam:AWSServiceName": _FIRST_CLUSTER})

"""A state machine's definition as the template has it, with what CloudFormation puts in.

Done without moto, and from physical ids alone, to hold against what a deployment has come to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from embedded.aws.account import ACCOUNT, PARTITION, REGION
from embedded.aws.deployment.assembly import BadAssembly, Stack
from embedded.aws.deployment.deploy import Deployed
from tests.substitution import Substitution

_MACHINE: Final = "AWS::StepFunctions::StateMachine"
_HERE: Final = f"{REGION}:{ACCOUNT}"
_ATTRIBUTES: Final[Mapping[tuple[str, str], str]] = {
    ("AWS::S3::Bucket", "Arn"): f"arn:{PARTITION}:s3:::{{id}}",
    ("AWS::IAM::Role", "Arn"): f"arn:{PARTITION}:iam::{ACCOUNT}:role/{{id}}",
    ("AWS::IAM::InstanceProfile", "Arn"): f"arn:{PARTITION}:iam::{ACCOUNT}:instance-profile/{{id}}",
    ("AWS::Lambda::Function", "Arn"): f"arn:{PARTITION}:lambda:{_HERE}:function:{{id}}",
    ("AWS::Logs::LogGroup", "Arn"): f"arn:{PARTITION}:logs:{_HERE}:log-group:{{id}}:*",
    ("AWS::SQS::Queue", "Arn"): f"arn:{PARTITION}:sqs:{_HERE}:{{name}}",
    ("AWS::SQS::Queue", "QueueName"): "{name}",
    ("AWS::KMS::Key", "Arn"): f"arn:{PARTITION}:kms:{_HERE}:key/{{id}}",
    ("AWS::Events::Rule", "Arn"): f"arn:{PARTITION}:events:{_HERE}:rule/{{id}}",
    ("AWS::StepFunctions::StateMachine", "Arn"): "{id}",
    ("AWS::StepFunctions::StateMachine", "Name"): "{last}",
    ("AWS::Batch::JobQueue", "JobQueueArn"): "{id}",
    ("AWS::Batch::JobDefinition", "JobDefinitionArn"): "{id}",
    ("AWS::Batch::ComputeEnvironment", "ComputeEnvironmentArn"): "{id}",
    ("AWS::SNS::Topic", "TopicArn"): "{id}",
    ("AWS::EC2::SecurityGroup", "GroupId"): "{id}",
    ("AWS::EC2::VPC", "VpcId"): "{id}",
    ("AWS::EMR::Cluster", "Id"): "{id}",
}
"""What Fn::GetAtt gives. id: the physical id; name: what stands behind its last slash; last: behind its last colon."""


def substituted_definition(stack: Stack, deployed: Deployed) -> str:
    """What Step Functions has to have for the definition of the stack's state machine, to the byte."""
    machines = [resource for resource in stack.template["Resources"].values() if resource["Type"] == _MACHINE]
    if len(machines) != 1:
        raise BadAssembly(f"stack {stack.name} has {len(machines)} state machines, not one")
    return str(DeployedValues(stack, deployed).value(machines[0]["Properties"]["DefinitionString"]))


class DeployedValues(Substitution):
    """Values of a stack, from the physical ids that its deployment came to."""

    def __init__(self, stack: Stack, deployed: Deployed) -> None:
        super().__init__(deployed.exports)
        self._resources = deployed.stacks[stack.name].resources
        self._pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": PARTITION,
            "AWS::Region": REGION,
            "AWS::StackName": stack.name,
            "AWS::URLSuffix": "amazonaws.com",
        }

    def reference(self, name: str) -> str:
        return self._pseudo.get(name) or self._resources[name].id

    def attribute(self, name: str, attribute: str) -> str:
        resource = self._resources[name]
        form = _ATTRIBUTES[resource.kind, attribute]
        return form.format(id=resource.id, name=resource.id.rpartition("/")[2], last=resource.id.rpartition(":")[2])

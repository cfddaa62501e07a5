"""Physical values in the place of CloudFormation's references: of the right form, with names as long as they get."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tests.infra.templates import Template, resources
from tests.substitution import Substitution

REGION = "us-east-1"
ACCOUNT = "123456789012"
_PSEUDO = {
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::AccountId": ACCOUNT,
    "AWS::URLSuffix": "amazonaws.com",
}
_ARNS = {
    "AWS::S3::Bucket": "arn:aws:s3:::{name}",
    "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/{{name}}",
    "AWS::Lambda::Function": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{{name}}",
    "AWS::Batch::ComputeEnvironment": f"arn:aws:batch:{REGION}:{ACCOUNT}:compute-environment/{{name}}",
    "AWS::Batch::JobQueue": f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/{{name}}",
    "AWS::Batch::JobDefinition": f"arn:aws:batch:{REGION}:{ACCOUNT}:job-definition/{{name}}:1",
    "AWS::SNS::Topic": f"arn:aws:sns:{REGION}:{ACCOUNT}:{{name}}",
    "AWS::SQS::Queue": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{{name}}",
    "AWS::StepFunctions::StateMachine": f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{{name}}",
    "AWS::Logs::LogGroup": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{{name}}:*",
    "AWS::KMS::Key": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/7d2c0a4e-55f1-4f0a-9c5e-0d6a2f6b1c3d",
}
_IDS = {
    "AWS::EC2::VPC": "vpc-{digits}",
    "AWS::EC2::Subnet": "subnet-{digits}",
    "AWS::EC2::SecurityGroup": "sg-{digits}",
    "AWS::EMR::Cluster": "j-{upper}",
}
_REF_IS_ARN = {"AWS::Batch::JobDefinition", "AWS::SNS::Topic", "AWS::StepFunctions::StateMachine"}
_ARN_ATTRIBUTES = {"Arn", "JobQueueArn", "ComputeEnvironmentArn", "TopicArn"}
_NAME_LENGTH = 63


class Deployed(Substitution):
    """One stack. exports: what other stacks give to it, by name."""

    def __init__(self, stack: str, template: Template, exports: Mapping[str, Any] | None = None) -> None:
        super().__init__(exports or {})
        self._stack = stack
        self._resources = template["Resources"]
        self._outputs = template.get("Outputs", {})

    def exports(self) -> dict[str, Any]:
        """Values of the outputs that other stacks may import."""
        given = [output for output in self._outputs.values() if "Export" in output]
        return {output["Export"]["Name"]: self.value(output["Value"]) for output in given}

    def definition(self) -> dict[str, Any]:
        """The state machine's definition, as Step Functions gets it."""
        template = {"Resources": self._resources}
        (machine,) = resources(template, "AWS::StepFunctions::StateMachine").values()
        definition: dict[str, Any] = json.loads(self.value(machine["DefinitionString"]))
        return definition

    def reference(self, name: str) -> str:
        if name in _PSEUDO:
            return _PSEUDO[name]
        kind = self._resources[name]["Type"]
        if kind in _REF_IS_ARN:
            return self.attribute(name, "Arn")
        digest = self._digest(name)
        return _IDS[kind].format(digits=digest[:17], upper=digest[:13].upper()) if kind in _IDS else self._name(name)

    def attribute(self, name: str, attribute: str) -> str:
        if attribute in _ARN_ATTRIBUTES:
            return _ARNS[self._resources[name]["Type"]].format(name=self._name(name))
        if attribute in {"GroupId", "VpcId"}:
            return self.reference(name)
        if attribute in {"Name", "QueueName", "TopicName"}:
            return self._name(name)
        raise AssertionError(f"attribute {attribute} of {name} is not known here")

    def _name(self, name: str) -> str:
        """As CloudFormation names what the template does not."""
        physical = f"{self._stack}-{name}"[: _NAME_LENGTH - 13] + "-" + self._digest(name)[:12].upper()
        return physical.lower() if self._resources[name]["Type"] == "AWS::S3::Bucket" else physical

    def _digest(self, name: str) -> str:
        return hashlib.sha256(f"{self._stack}{name}".encode()).hexdigest()

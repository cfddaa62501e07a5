"""Deploying an assembly, stack after stack."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from botocore.exceptions import ClientError
from moto.moto_api._internal import mock_random

from app.errors import StockflowError
from embedded.aws.deployment.assembly import Assembly, Stack
from embedded.aws.deployment.creation import Creation
from embedded.aws.deployment.publishing import bootstrap, publish_files, publish_images
from embedded.aws.deployment.resources import Api
from embedded.aws.host import Host


class DeploymentFailed(StockflowError):
    """A stack could not be created; the message has the stack's own reason."""

    exit_code = 10

    def __init__(self, stack: str, reason: str) -> None:
        super().__init__(f"stack {stack} was not created: {reason}")
        self.stack = stack
        self.reason = reason


@dataclass(frozen=True)
class Resource:
    """One resource of a stack. kind: its type; id: what Ref gives."""

    kind: str
    id: str


@dataclass(frozen=True)
class DeployedStack:
    """outputs by key, resources by logical id."""

    outputs: Mapping[str, str]
    resources: Mapping[str, Resource]


@dataclass(frozen=True)
class Deployed:
    """What a deployment came to.

    stacks and exports by name; adapted: the rules that were needed; not_created: resources by type that nothing was
    made of; ignored: properties by type that nothing looked at.
    """

    stacks: Mapping[str, DeployedStack]
    exports: Mapping[str, str]
    adapted: tuple[str, ...]
    not_created: Mapping[str, int]
    ignored: Mapping[str, tuple[str, ...]]
    seconds: float

    def describe(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


def deploy(assembly: Assembly, host: Host, only_stacks: Collection[str] | None = None) -> Deployed:
    """Deploy an assembly's stacks, or some of them, into the embedded AWS that runs in this process.

    Names are the same for the same assembly. Raises BadAssembly and DeploymentFailed.
    """
    began = time.monotonic()
    wanted = None if only_stacks is None else {assembly.stack(name).name for name in only_stacks}
    stacks = [stack for stack in assembly.stacks if wanted is None or stack.name in wanted]
    api = Api(host)
    creation = Creation(host)
    for stack in stacks:
        if unknown := list(creation.unknown(stack.template)):
            raise DeploymentFailed(stack.name, f"neither moto nor a rule can create {', '.join(unknown)}")
    creation.install()
    try:
        bootstrap(assembly, api)
        publish_files(assembly, api)
        publish_images(assembly, host)
        made = {stack.name: _create(stack, api) for stack in stacks}
    finally:
        mock_random.seed()
    exports = {export["Name"]: export["Value"] for export in _pages(api, "list_exports", "Exports")}
    return Deployed(
        stacks=made,
        exports=exports,
        adapted=tuple(creation.adapted),
        not_created=dict(creation.not_created),
        ignored={kind: tuple(sorted(names)) for kind, names in sorted(creation.ignored.items()) if names},
        seconds=round(time.monotonic() - began, 3),
    )


def _create(stack: Stack, api: Api) -> DeployedStack:
    mock_random.seed(stack.name)
    _check_parameters(stack, api)
    cloudformation = api.client("cloudformation")
    try:
        cloudformation.create_stack(
            StackName=stack.name,
            TemplateBody=stack.body,
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in stack.parameters.items()],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
            Tags=[{"Key": key, "Value": value} for key, value in stack.tags.items()],
        )
    except ClientError as exc:
        raise DeploymentFailed(stack.name, exc.response["Error"]["Message"]) from exc
    (described,) = cloudformation.describe_stacks(StackName=stack.name)["Stacks"]
    if described["StackStatus"] != "CREATE_COMPLETE":
        raise DeploymentFailed(stack.name, f"it is in {described['StackStatus']}")
    resources = _pages(api, "list_stack_resources", "StackResourceSummaries", StackName=stack.name)
    return DeployedStack(
        outputs={output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", ())},
        resources={
            found["LogicalResourceId"]: Resource(found["ResourceType"], found.get("PhysicalResourceId", ""))
            for found in resources
        },
    )


def _check_parameters(stack: Stack, api: Api) -> None:
    """Look whether what the template reads from SSM is there: moto's CloudFormation stumbles without a reason."""
    for parameter in stack.template.get("Parameters", {}).values():
        if parameter["Type"].startswith("AWS::SSM::Parameter::Value") and "Default" in parameter:
            found = api.client("ssm").get_parameters(Names=[parameter["Default"]])
            if found["InvalidParameters"]:
                raise DeploymentFailed(stack.name, f"SSM has no parameter {parameter['Default']}: put it there first")


def _pages(api: Api, method: str, key: str, **parameters: str) -> list[dict[str, Any]]:
    pages = api.client("cloudformation").get_paginator(method).paginate(**parameters)
    return [item for page in pages for item in page[key]]

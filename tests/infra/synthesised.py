"""The whole app in several variations: each is synthesised once in a session, since that takes seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from infra import context as cdk_context
from infra.stacks import synthesise
from tests.infra.deployed import Deployed
from tests.infra.permissions import Permission, permissions
from tests.infra.templates import Template, load, resources

VARIATIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "default": {},
    "managed": {"ingestion": {"instance_type": "m6i.2xlarge", "spot": True}, "retain": False},
    "always_on": {
        "name": "paper",
        "always_on": True,
        "ingestion.instance_type": "m6i.2xlarge",
        "training.spot": True,
        "schedules.enabled": True,
        "observability.email": "desk@example.org",
        "observability.log_days": 90,
    },
}
"""Settings over those of cdk.json."""


class Synthesised:
    """One variation: its templates, and what they come to once they are deployed."""

    def __init__(self, context: Mapping[str, Any], folder: Path) -> None:
        self.folder = Path(synthesise(context, str(folder)))
        self.deployment = cdk_context.load({**cdk_context.written_context(), **context})
        self.name = str(context.get("name", "stockflow"))
        self.data: Template = load(self.folder, f"{self.name}-data")
        self.compute: Template = load(self.folder, f"{self.name}-compute")
        self.data_stack = Deployed(f"{self.name}-data", self.data)
        self.compute_stack = Deployed(f"{self.name}-compute", self.compute, self.data_stack.exports())

    @cached_property
    def definition(self) -> dict[str, Any]:
        """The state machine's, as Step Functions gets it."""
        return self.compute_stack.definition()

    def machines(self) -> Iterator[dict[str, Any]]:
        """The definition and the branches in it."""
        waiting = [self.definition]
        while waiting:
            yield (machine := waiting.pop())
            waiting += [branch for state in machine["States"].values() for branch in state.get("Branches", ())]

    def states(self, *kinds: str) -> dict[str, dict[str, Any]]:
        """The state machine's states of these types by name, of all types when none is given."""
        found = [item for machine in self.machines() for item in machine["States"].items()]
        assert len({name for name, _ in found}) == len(found), "Step Functions wants each name once"
        return {name: state for name, state in found if not kinds or state["Type"] in kinds}

    @cached_property
    def permissions(self) -> list[Permission]:
        """What the roles of both stacks may do."""
        stacks = ((self.data, self.data_stack), (self.compute, self.compute_stack))
        return [found for template, stack in stacks for found in permissions(template, stack.value)]

    def bucket(self, role: str) -> str:
        """Name of the bucket ``Market``, ``Model``, ``Predictions`` or ``Logs``."""
        return str(self.data_stack.value(self.data["Outputs"][f"{role}Bucket"]["Value"]))

    def functions(self) -> dict[str, dict[str, Any]]:
        """Properties of the state machine's Lambdas by the file of their handler."""
        found = resources(self.compute, "AWS::Lambda::Function").values()
        return {
            function["Handler"].removesuffix(".handler"): function
            for function in found
            if function["Handler"].endswith(".handler") and function["Runtime"].startswith("python")
        }

    def function_arns(self) -> dict[str, str]:
        """ARN of each of the state machine's Lambdas, to the file of its handler."""
        by_id = {
            name: properties["Handler"].removesuffix(".handler")
            for name, properties in resources(self.compute, "AWS::Lambda::Function").items()
        }
        return {self.compute_stack.value({"Fn::GetAtt": [name, "Arn"]}): file for name, file in by_id.items()}

    def lambda_folder(self) -> Path:
        """What the Lambdas are made of, as it is uploaded."""
        (key,) = {function["Code"]["S3Key"] for function in self.functions().values()}
        return self.folder / f"asset.{key.removesuffix('.zip')}"

    def lambda_file(self, name: str) -> Any:
        """A JSON file beside the handlers."""
        return json.loads((self.lambda_folder() / name).read_text())

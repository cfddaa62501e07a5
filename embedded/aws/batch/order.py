"""What a call of SubmitJob asks for: the job definition, and what the call puts in its place."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedded.aws.batch.retry import RetryStrategy

LOG_GROUP = "/aws/batch/job"
"""The log group of jobs that name none: Batch makes it itself."""


@dataclass(frozen=True)
class LogOptions:
    """Where a container's lines go. create: whether the group is made when it is not there."""

    group: str
    prefix: str
    create: bool


@dataclass(frozen=True)
class Order:
    """A submitted job as it will run, alike for all children of an array.

    container: the definition's properties with the overrides in them; queue and definition: moto's.
    """

    name: str
    queue: Any
    definition: Any
    container: Mapping[str, Any]
    parameters: Mapping[str, str]
    retry: RetryStrategy
    timeout_s: int | None
    depends_on: Sequence[Mapping[str, str]]
    propagate_tags: bool
    share_identifier: str

    @classmethod
    def read(cls, request: Mapping[str, Any], queue: Any, definition: Any) -> Order:
        """Of the body of a SubmitJob call."""
        timeout = request.get("timeout") or definition.timeout or {}
        return cls(
            name=request["jobName"],
            queue=queue,
            definition=definition,
            container=_overridden(definition.container_properties, request.get("containerOverrides") or {}),
            parameters={**definition.parameters, **(request.get("parameters") or {})},
            retry=RetryStrategy.read(request.get("retryStrategy") or definition.retry_strategy),
            timeout_s=int(timeout["attemptDurationSeconds"]) if timeout else None,
            depends_on=request.get("dependsOn") or [],
            propagate_tags=bool(request.get("propagateTags", definition.propagate_tags)),
            share_identifier=request.get("shareIdentifier") or "",
        )

    @property
    def environment(self) -> str:
        """Name of the compute environment that the job runs in: the queue's first."""
        return str(self.queue.environments[0].name)

    @property
    def cluster(self) -> str:
        """Name of the ECS cluster behind it."""
        return str(self.queue.environments[0].ecs_name)

    def variables(self) -> dict[str, str]:
        """Environment variables of the definition and of the call."""
        return {pair["name"]: str(pair.get("value", "")) for pair in self.container["environment"]}

    def command(self) -> list[str]:
        """The command, its parameters in place."""
        return substitute(self.container["command"], self.parameters)

    def log(self) -> LogOptions | None:
        """Where to log to; None where a driver is asked for that does not write to CloudWatch."""
        asked = self.container.get("logConfiguration") or {}
        if asked.get("logDriver", "awslogs") != "awslogs":
            return None
        options = asked.get("options") or {}
        return LogOptions(
            group=options.get("awslogs-group", LOG_GROUP),
            prefix=options.get("awslogs-stream-prefix", self.definition.name),
            create=options.get("awslogs-create-group") == "true",
        )

    def describe(self) -> dict[str, Any]:
        """What DescribeJobs shows of it, besides the container."""
        return {
            "jobName": self.name,
            "jobQueue": self.queue.arn,
            "jobDefinition": self.definition.arn,
            "parameters": dict(self.parameters),
            "retryStrategy": self.retry.describe(),
            "dependsOn": [dict(dependency) for dependency in self.depends_on],
            "propagateTags": self.propagate_tags,
            "platformCapabilities": self.definition.platform_capabilities or ["EC2"],
            **({"timeout": {"attemptDurationSeconds": self.timeout_s}} if self.timeout_s else {}),
            **({"shareIdentifier": self.share_identifier} if self.share_identifier else {}),
        }


def substitute(words: Sequence[str], parameters: Mapping[str, str]) -> list[str]:
    """The words with each Ref::name replaced; a name that is no parameter stays as it is."""
    if not parameters:
        return list(words)
    # The longest name first: Ref::inputfile is not Ref::input with something behind it.
    names = "|".join(re.escape(name) for name in sorted(parameters, key=len, reverse=True))
    return [re.sub(f"Ref::({names})", lambda found: parameters[found[1]], word) for word in words]


def _overridden(properties: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A container's properties with what the call replaces: variables by name, requirements by type."""
    merged = copy.deepcopy(dict(properties))
    for key, value in overrides.items():
        if key == "environment":
            merged[key] = _by("name", merged.get(key) or [], value or [])
        elif key == "resourceRequirements":
            merged[key] = _by("type", merged.get(key) or [], value or [])
        elif value:
            merged[key] = value
    return merged


def _by(key: str, old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return list({entry[key]: dict(entry) for entry in (*old, *new)}.values())

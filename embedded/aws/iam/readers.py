"""From the parameters of a request to the ARNs of the resources that it is about."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

from embedded.aws.iam import resources
from embedded.aws.iam.roles import profile_roles, role_arn
from embedded.aws.iam.tables import Asked

Parameters = Mapping[str, Any]
Reader = Callable[[str, Parameters, str], str]
"""(the parameter, all parameters of the request, region) -> an ARN, or what stands in one."""

_PLACEHOLDER = re.compile(r"\{([^}|]+)(?:\|(\w+))?\}")
_SERVICE_LINKED = {"autoscaling": "AutoScaling", "batch": "Batch", "ecs": "ECS", "elasticmapreduce": "EMRCleanup"}
"""What the names of service-linked roles end with, where it is not the service's name."""


def resource_arns(asked: Asked, parameters: Parameters, region: str) -> list[str]:
    """The ARNs that the template of a table's line stands for in a request."""
    service = asked.action.partition(":")[0]
    texts: list[str] = []
    choices: list[list[str]] = []
    given, end = False, 0
    for found in _PLACEHOLDER.finditer(asked.resource):
        values = _values(parameters, found[1], default=_DEFAULTS.get(found[2]))
        given = given or bool(values)
        choices.append([_written(value, found[2], parameters, region) for value in values or ["*"]])
        texts.append(asked.resource[end : found.start()])
        end = found.end()
    if asked.optional and not given:
        return []
    last = asked.resource[end:]
    return [_arn(texts, chosen, last, service, region) for chosen in product(*choices)]


def _arn(texts: Sequence[str], chosen: Sequence[str], last: str, service: str, region: str) -> str:
    """Text and values in turn; a value that is an ARN is all there is to say."""
    whole = next((value for value in chosen if value.startswith("arn:")), None)
    joined = whole or "".join(text + value for text, value in zip(texts, chosen, strict=True)) + last
    return joined if joined.startswith("arn:") else resources.arn(service, region, joined)


def _values(parameters: Parameters, paths: str, default: str | None) -> list[str]:
    """Values of the first of the paths that has any; of a list's items, each has its own or the default."""
    for path in paths.split(","):
        found: list[Any] = [parameters]
        for part in path.split("."):
            name = part.removesuffix("[]")
            found = [one.get(name) for one in found if isinstance(one, Mapping)]
            if part.endswith("[]"):
                found = [item for items in found for item in (items or [])]
        values = [
            str(default if value is None else value) for value in found if value is not None or default is not None
        ]
        if values:
            return values
    return []


def _written(value: str, reader: str | None, parameters: Parameters, region: str) -> str:
    return value if reader is None or value == "*" else READERS[reader](value, parameters, region)


# --- readers --------------------------------------------------------------------------------------


def _function(value: str, parameters: Parameters, region: str) -> str:
    """A function by name, ARN or part of one, and its version or alias."""
    name, _, qualifier = value.rpartition("function:")[2].partition(":")
    qualifier = str(parameters.get("Qualifier") or qualifier)
    return f"{name}:{qualifier}" if qualifier else name


def _bus_part(value: str, parameters: Parameters, region: str) -> str:
    """What stands before a rule's name: nothing for the default event bus."""
    name = value.rpartition("/")[2]
    return "" if name == "default" else f"{name}/"


def _linked_role(value: str, parameters: Parameters, region: str) -> str:
    service = value.partition(".")[0]
    return f"AWSServiceRoleFor{_SERVICE_LINKED.get(service, service)}"


def _log_group(value: str, parameters: Parameters, region: str) -> str:
    return value.partition(":log-group:")[2].partition(":")[0] or value


READERS: Mapping[str, Reader] = {
    "bus": lambda value, parameters, region: value.rpartition("/")[2],
    "bus_part": _bus_part,
    "function": _function,
    "group": lambda value, parameters, region: resources.group_arn(value, region),
    "group_of_instance": lambda value, parameters, region: resources.group_of_instance(value, region),
    "key": lambda value, parameters, region: resources.key_arn(value, region),
    "key_of_ciphertext": lambda value, parameters, region: resources.key_of_ciphertext(value, region),
    "linked_role": _linked_role,
    "log_group": _log_group,
    "profile": lambda value, parameters, region: next(iter(profile_roles(value)), role_arn("*")),
    "queue": lambda value, parameters, region: value.rpartition("/")[2],
    "role": lambda value, parameters, region: role_arn(value),
    "schedule_group": lambda value, parameters, region: value,
    "topic": lambda value, parameters, region: value.rpartition(":")[0],
    "workgroup": lambda value, parameters, region: value,
    "workgroup_of_execution": lambda value, parameters, region: resources.workgroup_of_execution(value, region),
    "workgroup_of_query": lambda value, parameters, region: resources.workgroup_of_query(value, region),
}
_DEFAULTS = {"bus": "default", "bus_part": "default", "schedule_group": "default", "workgroup": "primary"}

"""Who may do what, by the policies of templates: identity policies as IAM evaluates them, conditions taken as met."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tests.infra.templates import Template, role_statements


class Permission(NamedTuple):
    """One statement about one role; patterns of actions and of resources."""

    role: str
    effect: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]


def permissions(template: Template, value: Callable[[Any], Any]) -> list[Permission]:
    """The statements about all roles of a template. value: gives references their physical values."""
    found = []
    for statement in role_statements(template):
        if unknown := statement.body.keys() - {"Sid", "Effect", "Action", "Resource", "Condition"}:
            raise AssertionError(f"{statement.holder}: {unknown} is not known here")
        actions, resources = (
            tuple(value(item) for item in (listed if isinstance(listed, list) else [listed]))
            for listed in (statement.body["Action"], statement.body["Resource"])
        )
        found.append(Permission(plain_name(statement.holder), statement.effect, actions, resources))
    return found


def who_may(all_permissions: Iterable[Permission], action: str, resource: str) -> set[str]:
    """The roles that may do `action` with `resource`, an ARN."""
    said = [
        permission
        for permission in all_permissions
        if any(_matches(pattern.lower(), action.lower()) for pattern in permission.actions)
        and any(_matches(pattern, resource) for pattern in permission.resources)
    ]
    refused = {permission.role for permission in said if permission.effect == "Deny"}
    return {permission.role for permission in said if permission.effect == "Allow"} - refused


@cache
def known_actions() -> dict[str, Any]:
    """AWS's list: actions by service in small letters, and the forms of the services' ARNs."""
    package = find_spec("cfnlint")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "data" / "AdditionalSpecs" / "Policies.json"
    known: dict[str, Any] = json.loads(path.read_text())
    return known


def arn_forms(action: str) -> list[str] | None:
    """Patterns of the ARNs that an action can be allowed on, none when it knows no resources; None: no such action."""
    service, _, name = action.partition(":")
    found = known_actions()[service]["Actions"].get(name.lower())
    if found is None:
        return None
    kinds = known_actions()[service]["Resources"]
    return [form for kind in found.get("Resources", ()) for form in kinds.get(kind.lower(), {}).get("ARNFormats", ())]


def takes_objects(action: str) -> bool:
    """Whether an action of S3 is about objects, and not about a bucket."""
    return "object" in known_actions()["s3"]["Actions"][action.removeprefix("s3:").lower()]["Resources"]


def allowed(all_permissions: Iterable[Permission]) -> Iterator[tuple[Permission, str, str]]:
    """Each pair of an action and a resource that a role is allowed."""
    for permission in all_permissions:
        assert permission.effect == "Allow"
        for action in permission.actions:
            for resource in permission.resources:
                yield permission, action, resource


def function_role(name: str) -> str:
    """The role of the Lambda in this file."""
    return f"WorkflowFunctions{name.title().replace('_', '')}Role"


def plain_name(logical_id: str) -> str:
    """A logical id without the digits that the CDK ends it with."""
    return re.sub(r"[0-9A-F]{8}$", "", logical_id)


def _matches(pattern: str, text: str) -> bool:
    """As IAM does: ``*`` stands for any characters, slashes and colons too, ``?`` for one."""
    return _compiled(pattern).fullmatch(text) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    wild = {"*": ".*", "?": "."}
    return re.compile("".join(wild.get(character) or re.escape(character) for character in pattern), re.DOTALL)

"""Who may do what, by the policies of templates: identity policies as IAM evaluates them, conditions taken as met."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
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

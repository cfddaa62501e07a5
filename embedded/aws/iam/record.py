"""The record of what roles called: which grants were needed, which never, and what was refused."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from embedded.aws.iam.decisions import Decision
from embedded.aws.iam.policies import Call, Caller, Grant, grants
from embedded.aws.iam.roles import Role, Roles

_RESOURCES = 200
"""Distinct resources of an action that a role's calls are counted by; further ones are counted together."""


@dataclass
class _Calls:
    """Calls of one role with one action and one outcome."""

    reason: str = ""
    by_resource: Counter[str] = field(default_factory=Counter)

    def count(self, resource: str) -> None:
        if resource not in self.by_resource and len(self.by_resource) >= _RESOURCES:
            resource = f"{resource.partition('/')[0]}/..."
        self.by_resource[resource] += 1


class Record:
    """Every call of a role since the start or the last reset. Safe to use from several threads.

    roles: whose grants are told apart into needed and never needed; left out, all that moto has.
    """

    def __init__(self, roles: Callable[[], Iterable[Role]] | None = None) -> None:
        self._roles = roles or Roles().all
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget all calls."""
        with self._lock:
            self._calls: defaultdict[tuple[str, str, bool], _Calls] = defaultdict(_Calls)
            self._used: set[tuple[str, str, str, str]] = set()

    def saw(self, caller: Caller, call: Call, decision: Decision) -> None:
        """Note a call and what came of it."""
        with self._lock:
            calls = self._calls[caller.role, call.action, decision.allowed]
            calls.count(call.resource)
            calls.reason = decision.reason
            if decision.grant is not None:
                self._used.add(_identity(caller.role, decision.grant))

    def report(self) -> dict[str, Any]:
        """What JSON can hold: calls by role, calls that were refused, and the grants that no call needed."""
        with self._lock:
            calls = sorted(self._lines(), key=lambda line: (line["role"], line["action"], line["resource"]))
            used = set(self._used)
        roles = sorted(self._roles(), key=lambda role: role.name)
        unused = [
            _unused(role.name, grant)
            for role in roles
            for grant in grants(role.identity)
            if _identity(role.name, grant) not in used
        ]
        by_role: dict[str, Any] = {role.name: {"arn": role.arn, "calls": [], "unused_grants": 0} for role in roles}
        for call in calls:
            by_role.setdefault(call["role"], {"calls": [], "unused_grants": 0})["calls"].append(
                {name: value for name, value in call.items() if name != "role"}
            )
        for grant in unused:
            by_role[grant["role"]]["unused_grants"] += 1
        return {
            "roles": by_role,
            "calls": calls,
            "calls_without_grant": [call for call in calls if not call["allowed"]],
            "unused_grants": unused,
        }

    def _lines(self) -> Iterable[dict[str, Any]]:
        for (role, action, allowed), calls in self._calls.items():
            for resource, count in calls.by_resource.items():
                line = {"role": role, "action": action, "resource": resource, "count": count, "allowed": allowed}
                yield line if allowed else {**line, "reason": calls.reason}


def _identity(role: str, grant: Grant) -> tuple[str, str, str, str]:
    """Tells grants apart, also when a policy was written anew with other statements."""
    return role, grant.policy, grant.statement.text, grant.action


def _unused(role: str, grant: Grant) -> dict[str, Any]:
    statement = grant.statement
    return {
        "role": role,
        "policy": grant.policy,
        "sid": statement.sid or statement.index,
        "action": grant.action,
        "resources": [pattern.text for pattern in statement.resources],
    }

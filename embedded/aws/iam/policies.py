"""Policy documents, and what they say about a call: their statements are read as IAM reads them.

A document says Deny when one statement does, else Allow when one does, else nothing. What several documents together
come to is decided in `embedded.aws.iam.decisions`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from app.errors import StockflowError
from embedded.aws.iam.conditions import Requirement, parse_conditions
from embedded.aws.iam.context import Context
from embedded.aws.iam.patterns import Pattern

Standing = Literal["", "direct", "account"]
"""How a statement names a caller: not at all, itself or as anybody, or only through its account."""


class BadPolicy(StockflowError):
    """A policy document is not one."""

    exit_code = 10


@dataclass(frozen=True)
class Caller:
    """Who calls: a session of a role."""

    role: str
    role_arn: str
    session_arn: str
    account: str


@dataclass(frozen=True)
class Call:
    """One thing that a request does: an action on a resource. resource "*": the action knows no resources."""

    action: str
    resource: str
    context: Context


@dataclass(frozen=True, eq=False)
class Statement:
    """One statement. inverted: whether actions, resources or principals are the ones that it is not about."""

    index: int
    sid: str
    effect: str
    actions: tuple[Pattern, ...]
    resources: tuple[Pattern, ...]
    principals: tuple[str, ...] | None
    requirements: tuple[Requirement, ...]
    inverted: frozenset[str]
    text: str

    def action_pattern(self, action: str) -> str | None:
        """The first pattern that makes this statement one about the action; None when it is not."""
        found = next((one.text for one in self.actions if one.matches(action, _no_values)), None)
        if "Action" in self.inverted:
            return self.action_names()[0] if found is None else None
        return found

    def action_names(self) -> tuple[str, ...]:
        """What it grants, one by one; a statement with NotAction grants all others at once."""
        names = tuple(one.text for one in self.actions)
        return (f"all but {', '.join(names)}",) if "Action" in self.inverted else names

    def applies(self, call: Call) -> bool:
        """Whether resource and conditions are those of the call."""
        named = any(pattern.matches(call.resource, call.context.get) for pattern in self.resources)
        return (not self.resources or named != ("Resource" in self.inverted)) and all(
            requirement.met(call.context, unknown=self.effect == "Deny") for requirement in self.requirements
        )

    def standing(self, caller: Caller) -> Standing:
        """How it names the caller; a statement without principals is one of the caller's own policies."""
        if self.principals is None:
            return "direct"
        named: Standing = ""
        if {"*", caller.role_arn, caller.session_arn} & set(self.principals):
            named = "direct"
        elif {caller.account, f"arn:aws:iam::{caller.account}:root"} & set(self.principals):
            named = "account"
        if "Principal" in self.inverted:
            return "" if named else "direct"
        return named


class Answer(NamedTuple):
    """What a document says about a call, and the statement and the pattern of actions by which it does."""

    effect: Literal["", "Allow", "Deny"]
    statement: Statement | None = None
    pattern: str = ""
    standing: Standing = ""


@dataclass(frozen=True, eq=False)
class Document:
    """A policy document."""

    statements: tuple[Statement, ...]
    _about: dict[str, tuple[tuple[Statement, str], ...]] = field(default_factory=dict)

    def says(self, caller: Caller, call: Call) -> Answer:
        """Deny before Allow; of several statements that allow, one that names the caller itself, then the first."""
        allowed = Answer("")
        for statement, pattern in self._statements_about(call.action):
            standing = statement.standing(caller)
            if not standing or not statement.applies(call):
                continue
            if statement.effect == "Deny":
                return Answer("Deny", statement, pattern, standing)
            if not allowed.effect or (allowed.standing == "account" and standing == "direct"):
                allowed = Answer("Allow", statement, pattern, standing)
        return allowed

    def _statements_about(self, action: str) -> tuple[tuple[Statement, str], ...]:
        if action not in self._about:
            named = ((statement, statement.action_pattern(action)) for statement in self.statements)
            self._about[action] = tuple((statement, pattern) for statement, pattern in named if pattern is not None)
        return self._about[action]


@dataclass(frozen=True)
class Policy:
    """A document by its name: an inline policy's, or a managed policy's ARN."""

    name: str
    document: Document


class Grant(NamedTuple):
    """One pattern of actions of one statement that allows."""

    policy: str
    statement: Statement
    action: str


def grants(policies: Iterable[Policy]) -> Iterator[Grant]:
    """All that the policies allow."""
    for policy in policies:
        for statement in policy.document.statements:
            if statement.effect == "Allow":
                yield from (Grant(policy.name, statement, action) for action in statement.action_names())


def read_policy(document: str | bytes | Mapping[str, Any]) -> Document:
    """A document from its JSON, or from what JSON has been read to."""
    if isinstance(document, bytes):
        document = document.decode()
    return _read(document if isinstance(document, str) else json.dumps(document, sort_keys=True, default=str))


@lru_cache(maxsize=1024)
def _read(text: str) -> Document:
    try:
        body = json.loads(text)
        variables = body.get("Version", "") >= "2012-10-17"
        return Document(
            tuple(_statement(index, one, variables) for index, one in enumerate(_listed(body["Statement"])))
        )
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise BadPolicy(f"{text[:80]!r} is no policy document: {exc!r}") from exc


def _statement(index: int, body: Mapping[str, Any], variables: bool) -> Statement:
    inverted = frozenset(name for name in ("Action", "Resource", "Principal") if f"Not{name}" in body)
    actions = _listed(body["NotAction" if "Action" in inverted else "Action"])
    resources = _listed(body.get("NotResource" if "Resource" in inverted else "Resource", []))
    principal = body.get("NotPrincipal" if "Principal" in inverted else "Principal")
    return Statement(
        index=index,
        sid=body.get("Sid", ""),
        effect=body["Effect"],
        actions=tuple(Pattern(text, ignore_case=True) for text in actions),
        resources=tuple(Pattern(text, variables=variables) for text in resources),
        principals=None if principal is None else _principals(principal),
        requirements=parse_conditions(body.get("Condition", {}), variables=variables),
        inverted=inverted,
        text=json.dumps(body, sort_keys=True),
    )


def _principals(written: str | Mapping[str, Any]) -> tuple[str, ...]:
    """Of the principals, those that can be a role: services and federated users never are."""
    return ("*",) if written == "*" else tuple(_listed(written.get("AWS", [])) if isinstance(written, Mapping) else ())


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _no_values(key: str) -> tuple[str, ...]:
    return ()

"""Whether a call is allowed: what a role's own policies, its limits and the resource's policy come to together.

Within one account, as AWS has it: a Deny anywhere refuses. Else the role's own policies or a resource policy that names
the role must allow; keys and trust policies must allow in any case, where naming the account leaves it to the role's
policies. A permissions boundary and a session's policy must allow as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from embedded.aws.iam.policies import Answer, Call, Caller, Document, Grant, Policy
from embedded.aws.iam.resources import Attached

_IDENTITY, _RESOURCE, _BOUNDARY, _SESSION = (
    "identity-based policy",
    "resource-based policy",
    "permissions boundary",
    "session policy",
)


class Holdings(NamedTuple):
    """The policies that a caller brings: its role's, and what limits them."""

    identity: tuple[Policy, ...] = ()
    boundary: Document | None = None
    session: Document | None = None


class Decision(NamedTuple):
    """reason: why not, as AWS's messages put it; grant: what of the role's own policies was needed."""

    allowed: bool
    reason: str = ""
    grant: Grant | None = None


def decide(caller: Caller, holdings: Holdings, attached: Attached | None, call: Call) -> Decision:
    """Whether the caller may do what it asks for."""
    own, name = _ask(holdings.identity, caller, call)
    limits = list(_limits(holdings, caller, call))
    on_resource = Answer("") if attached is None else attached.document.says(caller, call)
    for kind, answer in ((_IDENTITY, own), *limits, (_RESOURCE, on_resource)):
        if answer.effect == "Deny":
            article = "a" if kind[0] not in "aeiou" else "an"
            return Decision(False, f"with an explicit deny in {article} {kind}")
    named = on_resource.effect == "Allow" and on_resource.standing == "direct"
    if attached is not None and attached.decisive and not on_resource.effect:
        return _refused(_RESOURCE, call)
    if not named and own.effect != "Allow":
        return _refused(_IDENTITY, call)
    for kind, answer in limits:
        if answer.effect != "Allow":
            return _refused(kind, call)
    grant = None if own.statement is None else Grant(name, own.statement, own.pattern)
    return Decision(True, grant=grant)


def _ask(policies: tuple[Policy, ...], caller: Caller, call: Call) -> tuple[Answer, str]:
    """What several policies say, and the name of the one that decides."""
    allowed, name = Answer(""), ""
    for policy in policies:
        answer = policy.document.says(caller, call)
        if answer.effect == "Deny":
            return answer, policy.name
        if answer.effect and not allowed.effect:
            allowed, name = answer, policy.name
    return allowed, name


def _limits(holdings: Holdings, caller: Caller, call: Call) -> Iterator[tuple[str, Answer]]:
    if holdings.boundary is not None:
        yield _BOUNDARY, holdings.boundary.says(caller, call)
    if holdings.session is not None:
        yield _SESSION, holdings.session.says(caller, call)


def _refused(kind: str, call: Call) -> Decision:
    return Decision(False, f"because no {kind} allows the {call.action} action")

"""Roles as they stand now in moto: who holds an access key, and which policies a role has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moto.iam.models import iam_backends
from moto.sts.models import sts_backends

from embedded.aws.account import ACCOUNT, PARTITION
from embedded.aws.iam.policies import Document, Policy, read_policy


@dataclass(frozen=True)
class Role:
    """identity: its inline policies and the managed ones that are attached; boundary: what it can be allowed at most.

    trust: who may assume it.
    """

    id: str
    name: str
    arn: str
    identity: tuple[Policy, ...]
    boundary: Document | None
    trust: Document
    tags: Mapping[str, str]


class Sessions:
    """Sessions of roles by their access key: a dictionary of what moto keeps in a list."""

    def __init__(self) -> None:
        self._list: list[Any] = []
        self._by_key: dict[str, Any] = {}

    def find(self, key_id: str) -> Any | None:
        """moto's AssumedRole; None for a key that STS has not issued."""
        issued = sts_backends[ACCOUNT][PARTITION].assumed_roles
        if issued is not self._list:  # moto has been reset
            self._list, self._by_key = issued, {}
        if key_id not in self._by_key:
            self._by_key = {session.access_key_id: session for session in list(issued)}
        return self._by_key.get(key_id)


class Roles:
    """Roles by ARN; a role's policies are read again when they have changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, object, Role]] = {}

    def find(self, arn: str) -> Role | None:
        """The role as it is now; None when there is none."""
        held, fingerprint, role = self._known.get(arn, (None, None, None))
        stored = _roles()
        if held is None or stored.get(held.id) is not held:
            held = next((one for one in list(stored.values()) if one.arn == arn), None)
        if held is None:
            return None
        now = _fingerprint(held)
        if role is None or now != fingerprint:
            role = _read(held)
            self._known[arn] = (held, now, role)
        return role

    def all(self) -> Iterator[Role]:
        """Every role of the account."""
        for held in list(_roles().values()):
            role = self.find(held.arn)
            if role is not None:
                yield role


def role_arn(name_or_arn: str) -> str:
    """The ARN of a role that may be given by its name; a role that does not exist is taken to have no path."""
    if name_or_arn.startswith("arn:"):
        return name_or_arn
    name = name_or_arn.rpartition("/")[2]
    found = (held.arn for held in list(_roles().values()) if held.name == name)
    return next(found, f"arn:{PARTITION}:iam::{ACCOUNT}:role/{name_or_arn}")


def profile_roles(name_or_arn: str) -> list[str]:
    """ARNs of the roles in an instance profile."""
    name = name_or_arn.rpartition("/")[2]
    profiles = iam_backends[ACCOUNT][PARTITION].instance_profiles.values()
    return [role.arn for profile in list(profiles) if profile.name == name for role in profile.roles]


def _roles() -> dict[str, Any]:
    found: dict[str, Any] = iam_backends[ACCOUNT][PARTITION].roles
    return found


def _fingerprint(held: Any) -> object:
    """Changes when a policy of the role does; cheap, since equal documents are mostly the same objects."""
    return (
        tuple(held.policies.items()),
        tuple((arn, policy.default_version_id, len(policy.versions)) for arn, policy in held.managed_policies.items()),
        held.permissions_boundary_arn,
        held.assume_role_policy_document,
        repr(held.tags),
    )


def _read(held: Any) -> Role:
    managed = iam_backends[ACCOUNT][PARTITION].managed_policies
    boundary = managed.get(held.permissions_boundary_arn)
    return Role(
        id=held.id,
        name=held.name,
        arn=held.arn,
        identity=(
            *(Policy(name, read_policy(document)) for name, document in held.policies.items()),
            *(Policy(arn, _default_version(policy)) for arn, policy in held.managed_policies.items()),
        ),
        boundary=None if boundary is None else _default_version(boundary),
        trust=read_policy(held.assume_role_policy_document),
        tags=tag_map(held.tags),
    )


def _default_version(policy: Any) -> Document:
    return read_policy(next(one.document for one in policy.versions if one.version_id == policy.default_version_id))


def tag_map(tags: Any) -> dict[str, str]:
    """Tags in any of the forms that services write them in, as a dictionary."""
    if isinstance(tags, Mapping):
        return {str(key): str(value) for key, value in tags.items()}
    return dict(_pairs(tags or ()))


def _pairs(tags: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for tag in tags:
        small = {str(name).lower().removeprefix("tag"): value for name, value in tag.items()}
        yield str(small.get("key", "")), str(small.get("value") or "")

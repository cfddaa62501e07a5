"""Which services may act as a role: what its trust policy says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from moto.iam.models import iam_backends

from app.errors import StockflowError
from embedded.aws.account import ACCOUNT, PARTITION


class NotTrusted(StockflowError):
    """A role that does not exist, or that does not trust who wants to act as it."""

    exit_code = 10


def check_trust(role_arn: str, service: str) -> None:
    """Raise NotTrusted where a service, by its principal, cannot act as a role."""
    roles = [role for role in list(iam_backends[ACCOUNT][PARTITION].roles.values()) if role.arn == role_arn]
    if not any(_trusts(role.assume_role_policy_document, service) for role in roles):
        raise NotTrusted(
            f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal"
            f" '{service}' to assume the role."
        )


def _trusts(document: str | Mapping[str, Any], service: str) -> bool:
    policy = json.loads(document) if isinstance(document, str) else document
    return any(
        statement["Effect"] == "Allow"
        and {"sts:AssumeRole", "sts:*", "*"} & {*_as_list(statement.get("Action", []))}
        and service in _as_list(_principal(statement))
        for statement in _as_list(policy.get("Statement", []))
    )


def _principal(statement: Mapping[str, Any]) -> Any:
    principal = statement.get("Principal", {})
    return principal.get("Service", []) if isinstance(principal, Mapping) else []


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]

"""What the record of calls must say after an execution that went all the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def check_grants(judged: Mapping[str, Any]) -> None:
    """No call was refused, no grant is there without use or reason, no reason without a grant.

    judged: what `embedded.unused_grants.judge_calls` says.
    """
    assert judged["calls_without_grant"] == []
    assert judged["unused_grants_unjustified"] == []
    assert judged["needless_reasons"] == []
    assert judged["role_calls"] == sum(call["count"] for call in judged["calls"]) > 500
    assert all(set(call) == {"role", "action", "resource", "count", "allowed"} for call in judged["calls"])

"""A phase's result, in the one form in which laptop and AWS leave it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app import contract
from app.storage import Bucket


def write_result(market: Bucket, run_id: str, phase: str, result: Mapping[str, Any], wall_s: float) -> dict[str, Any]:
    """Store the result of a phase that has succeeded, and return it as stored: it says so by being there."""
    stored = {"phase": phase, "wall_s": round(wall_s, 3), **result}
    market.put_json(contract.result_key(run_id, phase), stored)
    return stored

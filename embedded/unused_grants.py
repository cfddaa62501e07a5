"""Grants that a run on one machine does not need, each with its reason in `unused_grants.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embedded.aws.iam.justified import judge, read_justifications

REASONS = Path(__file__).with_suffix(".toml")


def judge_calls(report: Mapping[str, Any]) -> dict[str, Any]:
    """The record of calls with its unused grants told apart; reasons that are about no grant are listed too."""
    judgement = judge(report["unused_grants"], read_justifications(REASONS))
    return {
        **{name: value for name, value in report.items() if name != "unused_grants"},
        "role_calls": sum(call["count"] for call in report["calls"]),
        "unused_grants_justified": judgement.justified,
        "unused_grants_unjustified": judgement.unjustified,
        "needless_reasons": [asdict(one) for one in judgement.needless],
    }

"""Which bars a run got, by ticker and day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app import contract
from app.ingest.plan import Plan

COMPLETE = "complete"


@dataclass(frozen=True)
class Lack:
    """A ticker that is not complete, and why."""

    ticker: str
    status: str
    rows: int
    days: Mapping[str, str]
    error: str


@dataclass(frozen=True)
class Coverage:
    """The run's coverage. share: by ticker the share of each day's minutes that have a bar, in the order of `days`."""

    days: Sequence[str]
    share: Mapping[str, Sequence[float]]
    requested: int
    statuses: Mapping[str, int]
    coverage: float
    rows: int
    lacks: Sequence[Lack]


def read_coverage(told: Any, plan: Plan | None) -> Coverage:
    """The run's coverage.json; a session that no plan tells of has contract.SESSION_MINUTES."""
    minutes = {session.day.isoformat(): session.minutes for session in plan.sessions} if plan else {}
    days = [str(day) for day in told["days"]]
    share = {
        str(line["ticker"]): [
            _share(line["missing"].get(day, 0), minutes.get(day, contract.SESSION_MINUTES)) for day in days
        ]
        for line in told["tickers"]
    }
    lacks = [
        Lack(line["ticker"], line["status"], line["rows"], line["days"], line["error"])
        for line in told["tickers"]
        if line["status"] != COMPLETE
    ]
    return Coverage(
        days, share, int(told["requested"]), told["statuses"], float(told["coverage"]), int(told["rows"]), lacks
    )


def _share(missing: int, minutes: int) -> float:
    return max(0.0, 1 - missing / minutes)

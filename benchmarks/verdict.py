"""What the figures amount to: the bars that are to be met, and results that must never be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import PARSING, Measured, differing, ratio
from benchmarks.job import Outcome


@dataclass(frozen=True)
class Goal:
    """A bar to be met. value: None when it was not measured. asked_at: the size for which the bar was set."""

    name: str
    value: float | None
    limit: float
    at_least: bool
    asked_at: str

    @property
    def met(self) -> bool | None:
        """Whether it is met; None when it was not measured."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def verdict(self) -> str:
        """In words, and by how much it is missed."""
        if self.value is None or self.met is None:
            return "not measured"
        if self.met:
            return "met"
        gap = abs(self.value - self.limit)
        return f"MISSED by {gap:.3g} ({gap / self.limit:.0%})"

    def to_json(self) -> dict[str, Any]:
        """As stored."""
        return {
            "name": self.name,
            "value": self.value,
            "at_least" if self.at_least else "at_most": self.limit,
            "asked_at": self.asked_at,
            "met": self.met,
        }


def goals(figures: Mapping[str, Any]) -> list[Goal]:
    """The bars that the ingest is held to."""
    small, large = "100 tickers x 5 days", "500 tickers x 22 days"
    few, cost = figures["cost_per_ticker_of_100_ms"], figures["cost_per_ticker_ms"]
    rated = (figures["rate"] or {}).get("arms", {})
    return [
        Goal("speed-up over naive", figures["speedup_over_naive"], 150, True, small),
        Goal("speed-up over the original's way", figures["speedup_over_original"], 60, True, small),
        Goal("ratio to the floor", figures["ratio_to_floor"], 1.4, False, "both sizes"),
        Goal("peak memory, MiB", figures["peak_rss_mib"], 600, False, large),
        Goal("cost per ticker over that at 100 tickers", ratio(cost, few), 1.0, False, large),
        *(
            Goal(f"share of the enforced rate, {name}", arm["sustained_share"], 0.95, True, "any rate")
            for name, arm in rated.items()
        ),
    ]


def wrong_results(
    reference: Outcome, named: Sequence[tuple[str, Measured]], faults: Mapping[str, Any] | None
) -> list[str]:
    """What must never happen, in words: lost tickers, bars that differ from the reference's, uncounted retries.

    named: all runs with the names of their arms. What the original's way loses is its own, and no error of ours.
    """
    ours = [("our first run", reference)]
    ours += [(name, one.run.outcome) for name, one in named if name not in ("original", PARSING)]
    wrong = [f"{name} lost {', '.join(outcome.lost)}" for name, outcome in ours if outcome.lost]
    for name, outcome in ours:
        if other := differing(outcome, reference):
            wrong.append(f"{name} has other bars than our first run of {', '.join(other)}")
    return [*dict.fromkeys(wrong), *(_miscounted(faults) if faults else ())]


def _miscounted(faults: Mapping[str, Any]) -> Iterator[str]:
    unseen = faults["repeated_by_curl"]
    if faults["retries"] + unseen != faults["must_be_retried"] or not 0 <= unseen <= faults["faults"].get("drop", 0):
        yield (
            f"{faults['must_be_retried']} answers failed, but {faults['retries']} retries were counted"
            f" and {unseen} requests by nobody"
        )
    if faults["verified"] < faults["must_be_verified"]:
        yield f"{faults['must_be_verified']} answers were short, but only {faults['verified']} were asked for again"
    counted = faults["asked"] + faults["retries"] + faults["verified"]
    if counted != faults["requests"]:
        yield f"{faults['requests']} requests were counted, {counted} of them for a reason"

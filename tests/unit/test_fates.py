"""How tickers and days ended, in a few lines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from embedded.execution import Execution, StateRun
from embedded.fates import Fate, coverage_lines, coverage_run, read_fate, read_note, say, worst_first

START = datetime(2026, 3, 16, 20, 0, tzinfo=UTC)
DAYS = ["2025-12-04", "2025-12-05", "2025-12-08", "2025-12-09"]
WEEKEND = {"2025-12-06": {"empty-by-calendar": 3}, "2025-12-07": {"empty-by-calendar": 3}}


def ticker(name: str, status: str, error: str = "", **days: str) -> dict[str, Any]:
    """days: statuses by the number of the day: d0="partial". Each of them lacks 100 minutes, and the first day 3."""
    by_day = {DAYS[int(d[1:])]: s for d, s in days.items()}
    missing = {DAYS[0]: 3, **dict.fromkeys(by_day, 100)}
    return {"ticker": name, "status": status, "error": error, "days": by_day, "missing": missing}


def covered(*tickers: dict[str, Any]) -> list[str]:
    statuses = {"complete": 0, "partial": 0, "delisted": 0, "failed": 0}
    by_day: dict[str, dict[str, int]] = {day: dict(statuses) for day in DAYS}
    for one in tickers:
        statuses[one["status"]] += 1
        for day in DAYS:
            by_day[day][one["days"].get(day, "complete")] += 1
    return coverage_lines(
        {
            "requested": len(tickers),
            "days": DAYS,
            "statuses": statuses,
            "by_day": {**by_day, **WEEKEND},
            "tickers": list(tickers),
        }
    )


@pytest.mark.parametrize(
    ("line", "fate"),
    [
        ("ingest: XYZ failed: 5 attempts: last 429", Fate("XYZ", "failed", "5 attempts: last 429")),
        ("ingest: BRK-B partial: 2025-12-01 lacks 1", Fate("BRK-B", "partial", "2025-12-01 lacks 1")),
        ("ingest: 3/9 tickers: 2 complete, 1 failed", None),
        ("ingest: XYZ complete: all", None),
        ("dataset: XYZ failed: 1", None),
        ('{"phase": "ingest"}', None),
    ],
)
def test_a_line_about_a_ticker_is_told_from_others(line: str, fate: Fate | None) -> None:
    assert read_fate(line) == fate


def test_a_note_s_counts_are_read_and_said_in_one_order() -> None:
    assert read_note("minutes fed") == ("minutes fed", {})
    unit, counts = read_note("tickers: 1 failed, 1,018 complete")
    assert (unit, say(counts)) == ("tickers", "1,018 complete, 1 failed")


def test_what_failed_comes_before_what_lacks_bars_and_a_long_reason_is_cut() -> None:
    fates = [Fate("A", "partial", "x"), Fate("C", "failed", "y"), Fate("B", "delisted", "z"), Fate("B", "failed", "y")]
    assert [str(fate)[:8] for fate in worst_first(fates)] == ["B failed", "C failed", "B delist", "A partia"]
    assert len(str(Fate("A", "failed", "x" * 500))) == 120


def test_a_whole_coverage_is_two_lines() -> None:
    assert covered(ticker("A", "complete"), ticker("B", "complete")) == [
        "coverage: 2 tickers x 4 sessions: 2 complete",
        "days: 4 complete, 2 empty-by-calendar",
    ]


def test_days_and_tickers_that_are_not_complete_are_told_with_what_they_lack() -> None:
    assert covered(
        ticker("A", "complete"),
        ticker("B", "partial", d1="partial", d2="partial", d3="complete"),
        ticker("C", "failed", "C: no answer", d3="failed"),
        ticker("D", "delisted", "No data found", d0="delisted", d1="delisted", d2="delisted", d3="delisted"),
    ) == [
        "coverage: 4 tickers x 4 sessions: 1 complete, 1 partial, 1 delisted, 1 failed",
        "days: 1 complete, 2 empty-by-calendar",
        "  2025-12-05: 2 complete, 1 partial, 1 delisted",
        "  2025-12-08: 2 complete, 1 partial, 1 delisted",
        "  2025-12-09: 2 complete, 1 delisted, 1 failed",
        "  C failed: no answer",
        "  D delisted: No data found",
        "  B partial: 2025-12-05 to 2025-12-08 lacks 200 minutes",
    ]


def test_of_many_tickers_some_are_told_and_the_others_counted() -> None:
    lines = covered(*(ticker(f"T{number:02d}", "partial", d0="partial") for number in range(25)))
    assert lines[-1] == "  15 more tickers: coverage.json"
    assert len(lines) == 3 + 10 + 1


def test_the_run_is_known_from_the_state_that_joined_its_coverage() -> None:
    joined = StateRun("CheckCoverage", START, parameters={"Payload": {"run_id": "evening"}})
    assert coverage_run(Execution("arn", "name", "RUNNING", START, None, (joined,))) == "evening"
    assert coverage_run(Execution("arn", "name", "RUNNING", START, None, (StateRun("CheckCoverage", START),))) is None

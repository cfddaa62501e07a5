"""The run's coverage, joined from manifests: every ticker and day is accounted for, and a bad one fails the phase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from app import contract
from app.errors import UniverseError, YahooError
from app.ingest.answers import DayAnswer
from app.ingest.counts import FetchCount
from app.ingest.coverage import ingest_result, write_coverage
from app.ingest.plan import Plan, make_plan, read_plan, write_plan
from app.ingest.report import Status, TickerReport, make_report
from app.sessions import Session
from app.storage import Bucket
from tests.fakes import bucket, make_sessions

FRIDAY, MONDAY, TUESDAY = "2025-12-05", "2025-12-08", "2025-12-09"
DAYS = FRIDAY, MONDAY, TUESDAY
WEEKEND = ["2025-12-06", "2025-12-07"]
SESSIONS: tuple[Session, ...] = tuple(
    session for session in make_sessions(*[390] * 8, 210) if session.day.isoformat() in DAYS
)
STRICT: dict[str, Any] = {"min_coverage": 1.0, "on_delisted": "fail"}
ERRORS: dict[Status, str] = {"failed": "too busy", "delisted": "symbol may be delisted"}


def told(
    ticker: str,
    status: Status = "complete",
    missing: dict[str, int] | None = None,
    failed: Sequence[Session] = SESSIONS[-1:],
) -> TickerReport:
    """A ticker's report with so many minutes missing at the beginning of these days.

    Of one that failed these days (the last) have no answer, of one that is delisted none.
    """
    lost = {"failed": failed, "delisted": SESSIONS}.get(status, ())
    lacking = {day: f"0-{minutes - 1}" for day, minutes in (missing or {}).items()}
    answers = {s.day: DayAnswer(1, True, lacking.get(s.day.isoformat(), "")) for s in SESSIONS if s not in lost}
    errors = {session.day: (status, f"{ticker}: {ERRORS[status]}") for session in lost}
    count = FetchCount(requests=3, retries=1, rate_limited=2, verified=4)
    report = make_report(ticker, SESSIONS, WEEKEND, answers, errors, 0.9, count)
    assert report.status == status
    return report


def empty(ticker: str) -> TickerReport:
    return told(ticker, "partial", {s.day.isoformat(): s.minutes for s in SESSIONS})


def stored(*reports: TickerReport) -> tuple[Plan, Bucket]:
    """A plan of two shards and the manifests of its tickers."""
    by_name = {report.ticker: report for report in reports}
    plan = make_plan("r", sorted(by_name), SESSIONS, shards=2, request_days=7)
    market = bucket()
    for shard in plan.shards:
        body = {"shard": shard.name, "tickers": [by_name[ticker].to_json() for ticker in shard.tickers]}
        market.put_json(contract.manifest_key("r", shard.name), body)
    return plan, market


def covered(*reports: TickerReport, **settings: Any) -> dict[str, Any]:
    plan, market = stored(*reports)
    coverage = write_coverage(plan, market, **{**STRICT, **settings})
    assert market.get_json(contract.coverage_key("r")) == coverage
    return coverage


# --- joined --------------------------------------------------------------------------------------


def test_coverage_joins_all_shards_and_is_stored() -> None:
    held, faulty = told("A"), told("C")
    held.held, faulty.faults = 390, {"stale": 12, "forming": 1}
    partial = told("B", "partial", {MONDAY: 40})
    partial.faults = {"stale": 3}
    coverage = covered(partial, held, faulty)
    assert [t["ticker"] for t in coverage["tickers"]] == ["A", "B", "C"]
    assert coverage["statuses"] == {"complete": 2, "partial": 1, "delisted": 0, "failed": 0}
    assert (coverage["requested"], coverage["rows"], coverage["held"]) == (3, 3 * 990 - 40, 390)
    assert [coverage[name] for name in ("requests", "retries", "rate_limited", "verified")] == [9, 3, 6, 12]
    assert coverage["faults"] == {"stale": 15, "forming": 1}
    assert coverage["coverage"] == 1
    assert coverage["days"] == list(DAYS)


def test_every_day_counts_its_tickers_by_status_and_closed_days_are_among_them() -> None:
    reports = told("A"), told("B", "partial", {MONDAY: 40}), told("C", "failed"), told("D", "delisted")
    coverage = covered(*reports, min_coverage=0.5, on_delisted="skip")
    assert coverage["by_day"] == {
        FRIDAY: {"complete": 3, "delisted": 1},
        "2025-12-06": {"empty-by-calendar": 4},
        "2025-12-07": {"empty-by-calendar": 4},
        MONDAY: {"complete": 2, "partial": 1, "delisted": 1},
        TUESDAY: {"complete": 2, "failed": 1, "delisted": 1},
    }
    assert list(coverage["by_day"]) == sorted(coverage["by_day"])


def test_of_each_ticker_the_days_that_are_neither_complete_nor_closed_are_listed() -> None:
    reports = told("A"), told("B", "partial", {MONDAY: 40}), told("C", "failed")
    lines = {line["ticker"]: line for line in covered(*reports, min_coverage=0)["tickers"]}
    assert {ticker: line["days"] for ticker, line in lines.items()} == {
        "A": {},
        "B": {MONDAY: "partial"},
        "C": {TUESDAY: "failed"},
    }
    assert lines["B"]["missing"] == {MONDAY: 40}
    assert lines["C"]["error"] == "C: too busy"
    assert all("gaps" not in line for line in lines.values())  # they stay in the manifest


def test_a_minute_now_and_then_without_a_trade_does_not_make_a_ticker_partial() -> None:
    coverage = covered(told("A", missing={FRIDAY: 39}), told("B", "partial", {FRIDAY: 40}))
    assert {t["ticker"]: (t["status"], t["missing"]) for t in coverage["tickers"]} == {
        "A": ("complete", {FRIDAY: 39}),
        "B": ("partial", {FRIDAY: 40}),
    }


def test_first_days_that_no_ticker_has_are_left_out_of_days_and_of_what_is_missing() -> None:
    early = {FRIDAY: 390}
    coverage = covered(told("A", missing=early), told("B", "partial", {**early, TUESDAY: 40}), told("C", missing=early))
    assert (coverage["days_before_data"], coverage["days"]) == ([FRIDAY], [MONDAY, TUESDAY])
    assert coverage["by_day"].keys() == {MONDAY, TUESDAY}
    assert {t["ticker"]: (t["status"], t["days"], t["missing"]) for t in coverage["tickers"]} == {
        "A": ("complete", {}, {}),
        "B": ("partial", {TUESDAY: "partial"}, {TUESDAY: 40}),
        "C": ("complete", {}, {}),
    }


def test_a_ticker_whose_first_bar_is_later_than_that_of_others_is_partial_in_the_run() -> None:
    coverage = covered(told("A"), told("LATE", missing={FRIDAY: 390}))
    assert [(t["status"], t["days"]) for t in coverage["tickers"]] == [
        ("complete", {}),
        ("partial", {FRIDAY: "partial"}),
    ]
    assert coverage["statuses"]["partial"] == 1


def test_a_first_day_that_one_ticker_has_and_a_later_day_that_none_has_stay() -> None:
    coverage = covered(told("A", "partial", {MONDAY: 390}), told("B", missing={FRIDAY: 390, MONDAY: 390}))
    assert (coverage["days_before_data"], coverage["days"]) == ([], list(DAYS))


def test_a_first_day_on_which_requests_failed_is_no_day_before_data() -> None:
    failed = told("A", "failed", failed=SESSIONS[:1]), told("B", "failed", failed=SESSIONS[:1])
    coverage = covered(*failed, min_coverage=0)
    assert (coverage["days_before_data"], coverage["days"]) == ([], list(DAYS))
    assert coverage["by_day"][FRIDAY] == {"failed": 2}
    assert (coverage["statuses"]["failed"], coverage["coverage"]) == (2, 0)


def test_one_request_that_failed_leaves_open_whether_a_day_has_data() -> None:
    first, later = told("A", missing={FRIDAY: 390}), told("B", "failed", {FRIDAY: 390}, failed=SESSIONS[1:2])
    assert covered(first, later, min_coverage=0.5)["days_before_data"] == [FRIDAY]
    coverage = covered(first, told("B", "failed", failed=SESSIONS[:1]), min_coverage=0.5)
    assert coverage["days_before_data"] == []
    assert coverage["by_day"][FRIDAY] == {"partial": 1, "failed": 1}


def test_tickers_without_any_bar_do_not_say_when_the_data_begin() -> None:
    coverage = covered(told("A", missing={FRIDAY: 390}), empty("B"), min_coverage=0.5)
    assert coverage["days"] == [MONDAY, TUESDAY]
    assert covered(empty("A"), empty("B"), min_coverage=0)["days"] == list(DAYS)


def test_a_shard_without_a_manifest_is_named() -> None:
    plan, _ = stored(told("A"), told("B"))
    with pytest.raises(YahooError, match=f"shard {plan.shards[0].name} left no manifest"):
        write_coverage(plan, bucket(), **STRICT)


def test_the_result_of_the_phase_is_drawn_from_its_coverage() -> None:
    coverage = covered(told("A"), told("B", "partial", {MONDAY: 40}))
    result = ingest_result(coverage, bucket())
    assert (result["rows"], result["where"], result["coverage"]) == (2 * 990 - 40, "s3://fake/bars/", 1)
    assert {"statuses", "days", "held", "verified", "faults"} <= result.keys()
    assert {name: coverage[name] for name in result if name != "where"} == {
        name: value for name, value in result.items() if name != "where"
    }


# --- judged --------------------------------------------------------------------------------------


def test_delisted_tickers_fail_the_phase_by_name_unless_they_are_to_be_skipped() -> None:
    reports = told("A"), *(told(f"NO{i}", "delisted") for i in range(7))
    with pytest.raises(UniverseError) as caught:
        covered(*reports)
    assert str(caught.value) == (
        "Yahoo knows no ticker 'NO0', 'NO1', 'NO2', 'NO3', 'NO4' and 2 more:"
        " correct the universe, or set ingest.on_delisted=skip"
    )
    coverage = covered(*reports, on_delisted="skip")
    assert coverage["statuses"]["delisted"] == 7


def test_nothing_but_delisted_tickers_is_a_failure_even_when_skipped() -> None:
    with pytest.raises(UniverseError, match=r"^Yahoo knows none of the tickers 'NO', 'NONE': correct the universe$"):
        covered(told("NO", "delisted"), told("NONE", "delisted"), on_delisted="skip")


def test_a_failed_or_empty_ticker_fails_the_phase_with_its_reason_after_coverage_is_stored() -> None:
    plan, market = stored(told("A"), told("B", "failed"), empty("C"))
    with pytest.raises(YahooError, match="2 of 3 tickers have no complete answer, first B: too busy"):
        write_coverage(plan, market, **STRICT)
    stored_coverage = market.get_json(contract.coverage_key("r"))
    assert stored_coverage["statuses"] == {"complete": 1, "partial": 1, "delisted": 0, "failed": 1}
    assert stored_coverage["coverage"] == pytest.approx(1 / 3)


def test_a_known_ticker_without_any_bar_is_told_as_that() -> None:
    with pytest.raises(YahooError, match="1 of 2 tickers have no complete answer, first B: no bars"):
        covered(told("A"), empty("B"))


def test_a_delisted_ticker_does_not_count_in_the_share_that_has_bars() -> None:
    coverage = covered(told("A"), empty("B"), told("NO", "delisted"), on_delisted="skip", min_coverage=0.5)
    assert coverage["coverage"] == 0.5


@pytest.mark.parametrize("failed", [0, 1, 3, 7])
def test_the_smallest_allowed_coverage_is_allowed(failed: int) -> None:
    reports = [told(f"T{i:02d}", "failed" if i < failed else "complete") for i in range(100)]
    share = (100 - failed) / 100
    assert covered(*reports, min_coverage=share)["statuses"]["failed"] == failed
    if failed:
        with pytest.raises(YahooError):
            covered(*reports, min_coverage=share + 0.005)


def test_partial_tickers_count_as_covered() -> None:
    assert covered(told("A", "partial", {FRIDAY: 389}))["coverage"] == 1


# --- the plan ------------------------------------------------------------------------------------


def test_the_plan_is_stored_as_it_is_read_back() -> None:
    market = bucket()
    plan = write_plan("r", ["A", "B"], market, SESSIONS, shards=2, request_days=7)
    assert read_plan("r", market) == plan
    assert (plan.sessions, plan.tickers) == (SESSIONS, ("A", "B"))

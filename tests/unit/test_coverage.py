"""The run's coverage, joined from manifests: every ticker is accounted for, and a bad one fails the phase."""

from __future__ import annotations

from typing import Any

import pytest

from app import contract
from app.errors import UniverseError, YahooError
from app.ingest.coverage import ingest_result, write_coverage
from app.ingest.fetch import FetchCount
from app.ingest.plan import Plan, make_plan, read_plan, write_plan
from app.ingest.shard import Status, TickerReport
from app.storage import Bucket
from tests.fakes import bucket, make_sessions

DAYS = ("2025-12-01", "2025-12-02", "2025-12-03")
SESSIONS = make_sessions(390, 390, 210)
STRICT: dict[str, Any] = {"complete_share": 0.9, "min_coverage": 1.0, "on_unknown": "fail"}


def told(ticker: str, status: Status = "complete", missing: dict[str, int] | None = None) -> TickerReport:
    missing = {day: s.minutes for day, s in zip(DAYS, SESSIONS, strict=True)} if status == "empty" else missing or {}
    rows = 0 if status in {"empty", "unknown"} else 990 - sum(missing.values())
    error = "too busy" if status == "failed" else ""
    return TickerReport(ticker, status, rows, missing, error, FetchCount(requests=3, retries=1, rate_limited=2))


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


def test_coverage_joins_all_shards_and_is_stored() -> None:
    coverage = covered(told("B", "partial", {DAYS[1]: 40}), told("A"), told("C"))
    assert [t["ticker"] for t in coverage["tickers"]] == ["A", "B", "C"]
    assert coverage["statuses"] == {"complete": 2, "partial": 1, "empty": 0, "unknown": 0, "failed": 0}
    assert (coverage["requested"], coverage["rows"]) == (3, 3 * 990 - 40)
    assert (coverage["requests"], coverage["retries"], coverage["rate_limited"]) == (9, 3, 6)
    assert coverage["coverage"] == 1
    assert coverage["days"] == list(DAYS)


def test_unknown_tickers_fail_the_phase_by_name_unless_they_are_to_be_skipped() -> None:
    reports = told("A"), *(told(f"NO{i}", "unknown") for i in range(7))
    with pytest.raises(UniverseError, match="no ticker 'NO0', 'NO1', 'NO2', 'NO3', 'NO4' and 2 more"):
        covered(*reports)
    coverage = covered(*reports, on_unknown="skip")
    assert coverage["statuses"]["unknown"] == 7


def test_nothing_but_unknown_tickers_is_a_failure_even_when_skipped() -> None:
    with pytest.raises(UniverseError, match=r"^Yahoo knows none of the tickers 'NO', 'NONE': correct the universe$"):
        covered(told("NO", "unknown"), told("NONE", "unknown"), on_unknown="skip")


def test_a_failed_or_empty_ticker_fails_the_phase_with_its_reason_after_coverage_is_stored() -> None:
    plan, market = stored(told("A"), told("B", "failed", {DAYS[2]: 210}), told("C", "empty"))
    with pytest.raises(YahooError, match="2 of 3 tickers have no complete answer, first B: too busy"):
        write_coverage(plan, market, **STRICT)
    stored_coverage = market.get_json(contract.coverage_key("r"))
    assert stored_coverage["statuses"]["failed"] == 1
    assert stored_coverage["coverage"] == pytest.approx(1 / 3)


def test_an_unknown_ticker_does_not_count_in_the_share_that_has_bars() -> None:
    coverage = covered(told("A"), told("B", "empty"), told("NO", "unknown"), on_unknown="skip", min_coverage=0.5)
    assert coverage["coverage"] == 0.5
    with pytest.raises(UniverseError):
        covered(told("NO", "unknown"))


def test_the_result_of_the_phase_is_drawn_from_its_coverage() -> None:
    coverage = covered(told("A"), told("B", "partial", {DAYS[1]: 40}))
    result = ingest_result(coverage, bucket())
    assert (result["rows"], result["where"], result["coverage"]) == (2 * 990 - 40, "s3://fake/bars/", 1)
    assert {name: coverage[name] for name in result if name != "where"} == {
        name: value for name, value in result.items() if name != "where"
    }


@pytest.mark.parametrize("failed", [0, 1, 3, 7])
def test_the_smallest_allowed_coverage_is_allowed(failed: int) -> None:
    reports = [told(f"T{i:02d}", "failed" if i < failed else "complete") for i in range(100)]
    share = (100 - failed) / 100
    assert covered(*reports, min_coverage=share)["statuses"]["failed"] == failed
    if failed:
        with pytest.raises(YahooError):
            covered(*reports, min_coverage=share + 0.005)


def test_partial_tickers_count_as_covered() -> None:
    assert covered(told("A", "partial", {DAYS[0]: 389}))["statuses"]["partial"] == 1


def test_first_days_that_no_ticker_has_are_left_out_of_days_and_of_what_is_missing() -> None:
    early = {DAYS[0]: 390}
    coverage = covered(
        told("A", "partial", early), told("B", "partial", {**early, DAYS[2]: 40}), told("C", "partial", early)
    )
    assert (coverage["days_before_data"], coverage["days"]) == ([DAYS[0]], list(DAYS[1:]))
    assert {t["ticker"]: (t["status"], t["missing"]) for t in coverage["tickers"]} == {
        "A": ("complete", {}),
        "B": ("partial", {DAYS[2]: 40}),
        "C": ("complete", {}),
    }


def test_a_first_day_that_one_ticker_has_and_a_later_day_that_none_has_stay() -> None:
    coverage = covered(told("A", "partial", {DAYS[0]: 390, DAYS[1]: 390}), told("B", "partial", {DAYS[1]: 390}))
    assert (coverage["days_before_data"], coverage["days"]) == ([], list(DAYS))


def test_a_shard_without_a_manifest_is_named() -> None:
    plan, _ = stored(told("A"), told("B"))
    with pytest.raises(YahooError, match=f"shard {plan.shards[0].name} left no manifest"):
        write_coverage(plan, bucket(), **STRICT)


def test_the_plan_is_stored_as_it_is_read_back() -> None:
    market = bucket()
    plan = write_plan("r", ["A", "B"], market, SESSIONS, shards=2, request_days=7)
    assert read_plan("r", market) == plan
    assert (plan.sessions, plan.tickers) == (SESSIONS, ("A", "B"))


def test_a_minute_now_and_then_without_a_trade_does_not_make_a_ticker_partial() -> None:
    coverage = covered(told("A", "partial", {DAYS[0]: 39}), told("B", "partial", {DAYS[0]: 40}))
    assert {t["ticker"]: (t["status"], t["missing"]) for t in coverage["tickers"]} == {
        "A": ("complete", {DAYS[0]: 39}),
        "B": ("partial", {DAYS[0]: 40}),
    }

"""What a ticker got of the plan's days, by hand: each day's status, the ticker's, and what there is to say."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from app.ingest.answers import DayAnswer
from app.ingest.counts import FetchCount
from app.ingest.report import Status, TickerReport, make_report
from app.storage import to_json
from tests.fakes import make_sessions

SESSIONS = make_sessions(10, 10, 5)
DAYS = [session.day.isoformat() for session in SESSIONS]
BUSY: tuple[Status, str] = ("failed", "A: 5 attempts failed, last: 500")
GONE: tuple[Status, str] = ("delisted", "A: No data found, symbol may be delisted")


def reported(
    *missing: str | None, errors: Mapping[int, tuple[Status, str]] | None = None, share: float = 0.9
) -> TickerReport:
    """The report of a ticker with these minutes missing of its days, None where nothing was answered."""
    answers = {
        session.day: DayAnswer(1, True, text)
        for session, text in zip(SESSIONS, missing, strict=True)
        if text is not None
    }
    by_day = {SESSIONS[i].day: error for i, error in (errors or {}).items()}
    return make_report("A", SESSIONS, ["2025-11-30"], answers, by_day, share, FetchCount(requests=4))


def test_all_minutes_of_all_days_are_complete() -> None:
    report = reported("", "", "")
    assert (report.status, report.rows, report.missing, report.gaps, report.error) == ("complete", 25, {}, {}, "")
    assert report.days == {"2025-11-30": "empty-by-calendar", **dict.fromkeys(DAYS, "complete")}
    assert report.fetch.requests == 4


def test_days_are_in_order_closed_ones_included() -> None:
    assert list(reported("", "", "").days) == ["2025-11-30", *DAYS]


def test_a_day_that_lacks_more_than_its_share_is_partial_and_says_how_much_and_which() -> None:
    report = reported("", "0-1,7", "")
    assert (report.status, report.rows) == ("partial", 22)
    assert report.days[DAYS[1]] == "partial"
    assert (report.missing, report.gaps) == ({DAYS[1]: 3}, {DAYS[1]: "0-1,7"})


def test_a_minute_now_and_then_leaves_a_day_complete_and_is_counted() -> None:
    report = reported("", "7", "")
    assert (report.status, report.rows, report.missing, report.gaps) == ("complete", 24, {DAYS[1]: 1}, {})


@pytest.mark.parametrize(("share", "status"), [(0.7, "complete"), (0.71, "partial"), (1.0, "partial")])
def test_the_smallest_share_that_is_complete_is_complete(share: float, status: str) -> None:
    assert reported("", "0-2", "", share=share).days[DAYS[1]] == status


def test_days_before_the_first_bar_do_not_count() -> None:
    report = reported("0-9", "0-9", "")
    assert (report.status, report.rows) == ("complete", 5)
    assert [report.days[day] for day in DAYS] == ["partial", "partial", "complete"]
    assert (report.missing, report.gaps) == ({DAYS[0]: 10, DAYS[1]: 10}, {})


def test_days_after_the_last_bar_count() -> None:
    assert reported("", "0-9", "0-4").status == "partial"


def test_a_known_ticker_without_any_bar_is_partial() -> None:
    report = reported("0-9", "0-9", "0-4")
    assert (report.status, report.rows) == ("partial", 0)
    assert report.missing == {DAYS[0]: 10, DAYS[1]: 10, DAYS[2]: 5}


def test_a_day_whose_request_failed_has_failed_and_so_has_its_ticker() -> None:
    report = reported("", None, "", errors={1: BUSY})
    assert (report.status, report.error, report.rows) == (*BUSY, 15)
    assert [report.days[day] for day in DAYS] == ["complete", "failed", "complete"]
    assert (report.missing, report.gaps) == ({DAYS[1]: 10}, {})


def test_a_failed_day_before_the_first_bar_counts() -> None:
    assert reported(None, "", "", errors={0: BUSY}).status == "failed"


def test_a_day_that_was_held_before_its_request_failed_stays_complete() -> None:
    report = reported("", "", "", errors={1: BUSY})
    assert (report.status, report.error) == ("complete", "")


def test_a_day_that_was_held_in_part_before_its_request_failed_has_failed_with_what_is_held() -> None:
    report = reported("", "0-4", "", errors={1: BUSY})
    assert (report.status, report.rows, report.missing) == ("failed", 20, {DAYS[1]: 5})


def test_a_ticker_that_yahoo_does_not_know_is_delisted_on_every_day() -> None:
    report = reported(None, None, None, errors=dict.fromkeys(range(3), GONE))
    assert (report.status, report.error, report.rows) == (*GONE, 0)
    assert [report.days[day] for day in DAYS] == ["delisted"] * 3


def test_the_worst_day_is_the_tickers_status() -> None:
    assert reported(None, None, "0-3", errors={0: GONE, 1: BUSY}).status == "failed"
    assert reported(None, "0-3", "", errors={0: GONE}).status == "delisted"


def test_a_report_survives_its_json() -> None:
    report = reported("", "0-1,7", None, errors={2: BUSY})
    report.held, report.faults = 3, {"stale": 12}
    assert TickerReport.from_json(json.loads(to_json(report.to_json()))) == report


# --- what there is to say ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (reported(None, "", "", errors={0: BUSY}), "A failed: 5 attempts failed, last: 500"),
        (reported(None, None, None, errors={2: GONE}), "A delisted: No data found, symbol may be delisted"),
        (reported("", "0-1,7", ""), "A partial: 2025-12-02 lacks 3 minutes (0-1,7)"),
        (
            reported("5-9", "", "0-3"),
            "A partial: 2025-12-01 lacks 5 minutes (5-9); 2025-12-03 lacks 4 minutes (0-3)",
        ),
        (reported("0-9", "0-4", ""), "A partial: 2025-12-02 lacks 5 minutes (0-4)"),
        (reported("0-9", "", "0-4"), "A partial: 2025-12-03 lacks 5 minutes (0-4)"),
        (reported("0-9", "0-9", "0-4"), "A partial: Yahoo knows it and has no bar of these days"),
    ],
)
def test_what_is_not_complete_is_told_in_a_sentence(report: TickerReport, sentence: str) -> None:
    assert report.sentence() == sentence


def test_of_many_short_days_the_last_three_are_named() -> None:
    sessions = make_sessions(*[10] * 6)
    answers = {session.day: DayAnswer(1, True, "0-4") for session in sessions}
    sentence = make_report("A", sessions, [], answers, {}, 0.9, FetchCount()).sentence()
    assert sentence == (
        "A partial: 2025-12-04 lacks 5 minutes (0-4); 2025-12-05 lacks 5 minutes (0-4);"
        " 2025-12-06 lacks 5 minutes (0-4) and 3 days more"
    )

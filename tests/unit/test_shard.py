"""One worker's part: what a ticker got and what it lacks."""

from __future__ import annotations

from typing import Any, cast

import pyarrow as pa
import pytest

from app.errors import YahooError
from app.ingest.bars import empty_bars
from app.ingest.fetch import FetchCount, Fetcher, UnknownTicker
from app.ingest.plan import Plan, Span, make_plan
from app.ingest.shard import fetch_ticker, missing_minutes
from tests.fakes import make_bars, make_sessions

SESSIONS = make_sessions(5, 3)
FIRST, SECOND = SESSIONS
PLAN: Plan = make_plan("r", ["AAPL"], SESSIONS, shards=1, request_days=1)
BUSY = YahooError("AAPL: 5 attempts failed")


class ScriptedFetcher:
    """Answers the plan's spans, one after another; an exception is raised."""

    def __init__(self, *answers: pa.Table | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[Span] = []

    def fetch(self, ticker: str, span: Span, count: FetchCount) -> pa.Table:
        """The next answer."""
        self.asked.append(span)
        count.requests += 1
        answer = self.answers[len(self.asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


def fetched(
    *answers: pa.Table | Exception, held: pa.Table | None = None, share: float = 1.0
) -> tuple[Any, Any, ScriptedFetcher]:
    source = ScriptedFetcher(*answers)
    bars, report = fetch_ticker(PLAN, "AAPL", cast(Fetcher, source), share, held)
    return bars, report, source


def day_one(*minutes: int) -> pa.Table:
    return make_bars("AAPL", FIRST, minutes)


def test_all_minutes_are_complete() -> None:
    bars, report, source = fetched(make_bars("AAPL", FIRST), make_bars("AAPL", SECOND))
    assert (report.status, report.rows, report.missing, report.error) == ("complete", 8, {}, "")
    assert len(bars) == 8
    assert source.asked == list(PLAN.spans)
    assert report.fetch.requests == 2


def test_missing_minutes_make_it_partial_and_are_counted_by_day() -> None:
    _, report, _ = fetched(day_one(0, 4), empty_bars())
    assert (report.status, report.rows) == ("partial", 2)
    assert report.missing == {"2025-12-01": 3, "2025-12-02": 3}


def test_no_bar_at_all_is_empty() -> None:
    _, report, _ = fetched(empty_bars(), empty_bars())
    assert (report.status, report.missing) == ("empty", {"2025-12-01": 5, "2025-12-02": 3})


def test_an_unknown_ticker_is_asked_for_once() -> None:
    bars, report, source = fetched(UnknownTicker("AAPL"), make_bars("AAPL", SECOND))
    assert (report.status, report.error) == ("unknown", "Yahoo knows no ticker 'AAPL'")
    assert (len(bars), len(source.asked)) == (0, 1)


def test_a_failed_span_fails_the_ticker_but_keeps_the_bars_before_it() -> None:
    bars, report, _ = fetched(make_bars("AAPL", FIRST), BUSY)
    assert (report.status, report.error, report.rows) == ("failed", str(BUSY), 5)
    assert report.missing == {"2025-12-02": 3}
    assert len(bars) == 5


@pytest.mark.parametrize(
    ("minutes", "missing"), [((0, 1, 2, 3, 4), {}), ((1, 2, 3, 4), {"2025-12-01": 1}), ((), {"2025-12-01": 5})]
)
def test_missing_minutes_are_those_of_the_session_alone(minutes: tuple[int, ...], missing: dict[str, int]) -> None:
    # Minutes before the open and from the close on stand in for none.
    assert missing_minutes(day_one(-1, *minutes, 5, 6), [FIRST]) == missing


def test_what_is_held_is_not_asked_for_again() -> None:
    held = pa.concat_tables([make_bars("AAPL", FIRST), make_bars("AAPL", SECOND)])
    bars, report, source = fetched(held=held)
    assert (source.asked, len(bars), report.fetch.requests) == ([], 0, 0)
    assert (report.status, report.rows, report.held) == ("complete", 8, 8)


def test_a_session_that_is_not_complete_is_asked_for_again_and_keeps_what_is_held() -> None:
    held = pa.concat_tables([make_bars("AAPL", FIRST), make_bars("AAPL", SECOND, [0])])
    bars, report, source = fetched(make_bars("AAPL", SECOND, [1, 2]), held=held)
    assert source.asked == [Span(SECOND.open_ts, SECOND.close_ts)]
    assert (len(bars), report.status, report.rows, report.held) == (2, "complete", 8, 6)


def test_a_session_that_is_complete_enough_is_not_asked_for_again() -> None:
    held = pa.concat_tables([make_bars("AAPL", FIRST, [0, 1, 2, 3]), make_bars("AAPL", SECOND)])
    _, report, source = fetched(held=held, share=0.8)
    assert (source.asked, report.status, report.missing) == ([], "complete", {FIRST.day.isoformat(): 1})


def test_of_a_span_of_many_sessions_only_the_incomplete_ones_are_asked_for() -> None:
    plan = make_plan("r", ["AAPL"], SESSIONS, shards=1, request_days=7)
    source = ScriptedFetcher(make_bars("AAPL", FIRST))
    fetch_ticker(plan, "AAPL", cast(Fetcher, source), held=make_bars("AAPL", SECOND))
    assert len(plan.spans) == 1
    assert source.asked == [Span(FIRST.open_ts, FIRST.close_ts)]


def test_a_complete_session_between_two_others_is_not_fetched_again() -> None:
    sessions = make_sessions(5, 5, 5)
    plan = make_plan("r", ["AAPL"], sessions, shards=1, request_days=7)
    source = ScriptedFetcher(empty_bars(), empty_bars())
    fetch_ticker(plan, "AAPL", cast(Fetcher, source), held=make_bars("AAPL", sessions[1]))
    assert source.asked == [Span(sessions[i].open_ts, sessions[i].close_ts) for i in (0, 2)]

"""One worker's part: what a ticker got, what it lacks, and which copy of a bar is kept."""

from __future__ import annotations

from typing import Any, cast

import pyarrow as pa
import pytest

from app.errors import YahooError
from app.ingest.fetch import FetchCount, Fetcher, UnknownTicker, empty_bars
from app.ingest.plan import Plan, Span, make_plan
from app.ingest.shard import fetch_ticker, latest_bars, missing_minutes
from tests.fakes import make_bars, make_sessions, with_column

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


def fetched(*answers: pa.Table | Exception) -> tuple[Any, Any, ScriptedFetcher]:
    source = ScriptedFetcher(*answers)
    bars, report = fetch_ticker(PLAN, "AAPL", cast(Fetcher, source))
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


def test_of_two_copies_of_a_bar_the_last_written_is_kept_and_all_are_in_order() -> None:
    old = day_one(0, 1, 2)
    new = with_column(day_one(1, 3), "close", [7.0, 8.0])
    other = make_bars("AA", FIRST, [4])
    kept = latest_bars([old, other, new])
    assert kept["ticker"].to_pylist() == ["AA"] + ["AAPL"] * 4
    assert [(ts.minute) for ts in kept["ts"].to_pylist()] == [34, 30, 31, 32, 33]
    closes = old["close"].to_pylist()
    assert kept["close"].to_pylist()[1:] == [closes[0], 7.0, closes[2], 8.0]
    assert kept.schema == old.schema


def test_the_last_copy_wins_within_one_table_too() -> None:
    twice = with_column(pa.concat_tables([day_one(0), day_one(0)]), "volume", [1, 2])
    assert latest_bars([twice])["volume"].to_pylist() == [2]

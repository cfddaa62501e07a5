"""The journal of a shard: what was fetched comes back, what failed does not."""

from __future__ import annotations

from typing import Any

from app import contract
from app.ingest.answers import DayAnswer
from app.ingest.collect import Collected
from app.ingest.counts import FetchCount
from app.ingest.journal import Journal
from app.ingest.report import Status, TickerReport
from app.ingest.ticker_bars import NO_BARS, TickerBars
from app.storage import Bucket
from tests.fakes import bucket, make_sessions
from tests.yahoo import walk

FIRST, SECOND = make_sessions(30, 20)


def collected(ticker: str, status: Status = "complete", bars: TickerBars | None = None, **told: Any) -> Collected:
    report = TickerReport(
        ticker, status, rows=50, days={"2025-12-01": status}, faults={"stale": 10}, fetch=FetchCount(requests=3), **told
    )
    answers = {FIRST.day: DayAnswer(7, True, ""), SECOND.day: DayAnswer(8, False, "0-3,9")}
    return Collected(walk(ticker, FIRST, SECOND) if bars is None else bars, answers, report)


def journal(market: Bucket, run_id: str = "r", shard: str = "s") -> Journal:
    return Journal(market, run_id, shard)


def test_an_empty_journal_holds_nothing() -> None:
    assert journal(bucket()).read() == {}


def test_what_was_added_is_read_back_to_the_last_bit() -> None:
    market, added = bucket(), {ticker: collected(ticker) for ticker in ("MSFT", "AAPL", "BRK-B")}
    journal(market).add(added.values())
    found = journal(market).read()
    assert found.keys() == added.keys()
    for ticker, one in added.items():
        assert found[ticker].bars.same_as(one.bars)
        assert (found[ticker].answers, found[ticker].report) == (one.answers, one.report)


def test_a_ticker_without_bars_is_remembered_too() -> None:
    market = bucket()
    journal(market).add(
        [collected("NONE", "partial", NO_BARS), collected("GONE", "delisted", NO_BARS, error="GONE: 404")]
    )
    found = journal(market).read()
    assert (found["NONE"].report.status, len(found["NONE"].bars)) == ("partial", 0)
    assert (found["GONE"].report.status, found["GONE"].report.error) == ("delisted", "GONE: 404")


def test_a_ticker_that_failed_is_left_out_until_it_has_not() -> None:
    market = bucket()
    journal(market).add([collected("A"), collected("B", "failed", error="B: 5 attempts failed")])
    assert journal(market).read().keys() == {"A"}
    journal(market).add([collected("B")])
    assert journal(market).read().keys() == {"A", "B"}


def test_entries_follow_each_other_over_attempts() -> None:
    market = bucket()
    for attempt in (["A", "B"], ["C"]):
        entries = journal(market)
        for ticker in attempt:
            entries.add([collected(ticker)])
    assert market.keys("") == [contract.journal_key("r", "s", seq) for seq in range(3)]
    assert journal(market).read().keys() == {"A", "B", "C"}


def test_shards_and_runs_have_journals_of_their_own() -> None:
    market = bucket()
    journal(market).add([collected("A")])
    assert journal(market, shard="s2").read() == journal(market, run_id="r2").read() == {}


def test_a_journal_that_is_forgotten_is_gone_with_what_earlier_attempts_left_in_it() -> None:
    market = bucket()
    journal(market).add([collected("A")])
    journal(market, shard="other").add([collected("O")])
    second = journal(market)
    second.add([collected("B")])
    second.forget()
    assert market.keys("") == [contract.journal_key("r", "other", 0)]
    assert journal(market).read() == {}

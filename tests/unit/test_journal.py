"""The journal of a shard: what was fetched comes back."""

from __future__ import annotations

from app import contract
from app.ingest.answers import DayAnswer
from app.ingest.journal import Fetched, Journal
from app.ingest.ticker_bars import NO_BARS, TickerBars
from app.storage import Bucket
from tests.fakes import bucket, make_sessions
from tests.yahoo import walk

FIRST, SECOND = make_sessions(30, 20)


def fetched(ticker: str, bars: TickerBars | None = None, asked_ts: int = 7) -> Fetched:
    answers = {FIRST.day: DayAnswer(asked_ts, True, ""), SECOND.day: DayAnswer(8, False, "0-3,9")}
    return Fetched(walk(ticker, FIRST, SECOND) if bars is None else bars, answers)


def journal(market: Bucket, run_id: str = "r", shard: str = "s") -> Journal:
    return Journal(market, run_id, shard)


def test_an_empty_journal_holds_nothing() -> None:
    assert journal(bucket()).read() == {}


def test_what_was_added_is_read_back_to_the_last_bit() -> None:
    market, added = bucket(), {ticker: fetched(ticker) for ticker in ("MSFT", "AAPL", "BRK-B")}
    journal(market).add(added)
    found = journal(market).read()
    assert found.keys() == added.keys()
    for ticker, one in added.items():
        assert found[ticker].bars.same_as(one.bars)
        assert found[ticker].answers == one.answers


def test_a_ticker_without_bars_is_remembered_too() -> None:
    market, nothing = bucket(), {"NONE": fetched("NONE", NO_BARS), "GONE": Fetched(NO_BARS, {})}
    journal(market).add(nothing)
    found = journal(market).read()
    assert {ticker: one.answers for ticker, one in found.items()} == {
        ticker: one.answers for ticker, one in nothing.items()
    }
    assert not any(len(one.bars) for one in found.values())


def test_of_two_entries_about_a_ticker_the_later_one_counts() -> None:
    market, later = bucket(), fetched("later", asked_ts=9)
    journal(market).add({"A": fetched("A"), "B": fetched("B")})
    journal(market).add({"A": later})
    found = journal(market).read()
    assert found["A"].bars.same_as(later.bars)
    assert (found["A"].answers, found["B"].answers) == (later.answers, fetched("B").answers)


def test_entries_follow_each_other_over_attempts() -> None:
    market = bucket()
    for attempt in (["A", "B"], ["C"]):
        entries = journal(market)
        for ticker in attempt:
            entries.add({ticker: fetched(ticker)})
    assert market.keys("") == [contract.journal_key("r", "s", seq) for seq in range(3)]
    assert journal(market).read().keys() == {"A", "B", "C"}


def test_shards_and_runs_have_journals_of_their_own() -> None:
    market = bucket()
    journal(market).add({"A": fetched("A")})
    assert journal(market, shard="s2").read() == journal(market, run_id="r2").read() == {}


def test_a_journal_that_is_forgotten_is_gone_with_what_earlier_attempts_left_in_it() -> None:
    market = bucket()
    journal(market).add({"A": fetched("A")})
    journal(market, shard="other").add({"O": fetched("O")})
    second = journal(market)
    second.add({"B": fetched("B")})
    second.forget()
    assert market.keys("") == [contract.journal_key("r", "other", 0)]
    assert journal(market).read() == {}

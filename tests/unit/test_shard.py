"""One worker's part of the ingest, over an S3 in memory: nothing is asked twice, no crash loses or doubles a bar."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from app import contract
from app.ingest import collect
from app.ingest.answers import read_answers
from app.ingest.bars import bars_of, get_bars, read_bars, read_parts
from app.ingest.chart import PassingFailure
from app.ingest.plan import Plan, Span, make_plan
from app.ingest.report import TickerReport
from app.ingest.shard import ingest_shard
from app.ingest.ticker_bars import TickerBars
from app.sessions import Session, utc
from app.settings import IngestSettings
from app.storage import Bucket
from tests.fakes import CrashingS3, Killed, bucket, make_sessions
from tests.yahoo import FakeYahoo, joined, minutes_after, walk

SESSIONS = FIRST, SECOND, THIRD = make_sessions(60, 60, 40)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NEXT_DAY = utc(THIRD.close_ts) + DAY
DROPPED = PassingFailure("the connection ended")


def make(tickers: str = "ABC", sessions: Sequence[Session] = SESSIONS, run_id: str = "r") -> Plan:
    return make_plan(run_id, list(tickers), sessions, shards=1, request_days=7)


@pytest.fixture
def yahoo(monkeypatch: pytest.MonkeyPatch) -> FakeYahoo:
    """Knows A, B and C, a day after the last session."""
    fake = FakeYahoo({ticker: walk(ticker, *SESSIONS) for ticker in "ABC"}, NEXT_DAY)
    monkeypatch.setattr(collect, "_CLIENTS", {"direct": fake.client})
    return fake


def ingest(
    yahoo: FakeYahoo, market: Bucket, plan: Plan, *, on_ticker: Any = lambda report: None, **settings: Any
) -> dict[str, TickerReport]:
    """Ingest the plan's only shard; what Yahoo was asked is counted anew."""
    yahoo.asked.clear()
    chosen = IngestSettings(**{"rate_per_s": 0, "backoff_s": 0, "journal_s": 0, "attempts": 2, **settings})
    (shard,) = plan.shards
    reports = ingest_shard(plan, shard, market, chosen, yahoo_url=None, clock=yahoo.clock, on_ticker=on_ticker)
    assert [report.ticker for report in reports] == list(shard.tickers)
    return {report.ticker: report for report in reports}


def stored(market: Bucket, sessions: Sequence[Session] = SESSIONS, tickers: str = "ABC") -> dict[str, TickerBars]:
    return bars_of(read_bars(market, sessions, list(tickers)))


def copies(market: Bucket) -> int:
    """Stored rows of all parts of all days, repeated ones included."""
    return sum(len(table) for session in SESSIONS for table in read_parts(market, session))


def assert_holds(market: Bucket, yahoo: FakeYahoo) -> None:
    """Every bar of Yahoo's is stored, and no other."""
    found = stored(market)
    assert found.keys() == yahoo.bars.keys()
    assert all(found[ticker].same_as(bars) for ticker, bars in yahoo.bars.items())


def part_of(plan: Plan) -> str:
    return contract.shard_part(plan.run_id, plan.shards[0].name)


def span(first: Session, last: Session) -> Span:
    return Span(first.open_ts, last.close_ts)


# --- what is written -----------------------------------------------------------------------------


def test_a_shard_leaves_one_part_a_day_its_answers_and_a_manifest(yahoo: FakeYahoo) -> None:
    market, plan = bucket(), make()
    reports = ingest(yahoo, market, plan)
    days = [session.day for session in SESSIONS]
    assert market.keys("") == [
        *(contract.answers_key(day, part_of(plan)) for day in days),
        *(contract.bars_key(day, part_of(plan)) for day in days),
        contract.manifest_key("r", plan.shards[0].name),
    ]
    assert_holds(market, yahoo)
    manifest = market.get_json(contract.manifest_key("r", plan.shards[0].name))
    assert manifest["shard"] == plan.shards[0].name
    assert [TickerReport.from_json(line) for line in manifest["tickers"]] == list(reports.values())
    assert {report.status for report in reports.values()} == {"complete"}


def test_bars_come_before_their_answers_these_before_the_manifest_and_the_journal_ends_last(yahoo: FakeYahoo) -> None:
    s3, plan = CrashingS3(), make()
    ingest(yahoo, bucket(s3), plan)
    at = {change: i for i, change in enumerate(s3.changes)}
    manifest = at["put", contract.manifest_key("r", plan.shards[0].name)]
    for session in SESSIONS:
        bars, answers = (key(session.day, part_of(plan)) for key in (contract.bars_key, contract.answers_key))
        assert at["put", bars] < at["put", answers] < manifest
    journal = [key for how, key in s3.changes if key.startswith("runs/r/journal/") and how == "put"]
    assert len(journal) == 3
    assert all(at["put", key] < manifest < at["delete", key] for key in journal)


def test_each_ticker_is_told_once_as_it_is_finished(yahoo: FakeYahoo) -> None:
    told: list[TickerReport] = []
    reports = ingest(yahoo, bucket(), make(), on_ticker=told.append)
    assert {report.ticker: report for report in told} == reports
    assert len(told) == 3


def test_a_shard_of_which_nobody_is_known_leaves_a_manifest_alone(yahoo: FakeYahoo) -> None:
    market, plan = bucket(), make("XY")
    assert {report.status for report in ingest(yahoo, market, plan).values()} == {"delisted"}
    assert market.keys("") == [contract.manifest_key("r", plan.shards[0].name)]


# --- what is held --------------------------------------------------------------------------------


def test_what_is_held_is_not_asked_for_again_by_another_run(yahoo: FakeYahoo) -> None:
    market = bucket()
    ingest(yahoo, market, make())
    before = market.keys(contract.BARS_PREFIX)
    reports = ingest(yahoo, market, make(run_id="r2"))
    assert not yahoo.asked
    assert market.keys(contract.BARS_PREFIX) == before
    for report in reports.values():
        assert (report.status, report.rows, report.held, report.fetch.requests) == ("complete", 160, 160, 0)


def test_a_run_over_other_tickers_asks_for_those_that_are_new(yahoo: FakeYahoo) -> None:
    market = bucket()
    ingest(yahoo, market, make("AB"))
    ingest(yahoo, market, make("BC", run_id="r2"))
    assert yahoo.tickers_asked() == {"C"}
    assert_holds(market, yahoo)


def test_runs_over_days_that_overlap_give_one_copy_of_each_bar(yahoo: FakeYahoo) -> None:
    market = bucket()
    ingest(yahoo, market, make(sessions=SESSIONS[:2]))
    ingest(yahoo, market, make(sessions=SESSIONS[1:], run_id="r2"))
    assert set(yahoo.asked) == {(ticker, span(THIRD, THIRD)) for ticker in "ABC"}
    assert_holds(market, yahoo)
    assert copies(market) == 3 * 160


def test_history_grows_beyond_what_yahoo_still_has(yahoo: FakeYahoo) -> None:
    market, all_bars = bucket(), yahoo.bars
    ingest(yahoo, market, make(sessions=SESSIONS[:1]))
    yahoo.bars = {ticker: bars.between(SECOND.open_ts, THIRD.close_ts) for ticker, bars in all_bars.items()}
    reports = ingest(yahoo, market, make(run_id="r2"))
    assert {report.status for report in reports.values()} == {"complete"}
    assert {ticker: len(bars) for ticker, bars in stored(market).items()} == dict.fromkeys("ABC", 160)


def test_a_bar_that_is_still_forming_is_not_stored_and_the_final_one_is(yahoo: FakeYahoo) -> None:
    market, final = bucket(), yahoo.bars["A"]
    forming = final.part(slice(None))
    close = final.close.copy()
    close[60 + 30] = 0.5 * (final.high[60 + 30] + close[60 + 30])  # the minute that runs at 30.5
    yahoo.bars = {"A": TickerBars(final.ts, final.open, final.high, final.low, close, final.volume)}
    yahoo.now = minutes_after(SECOND, 30.5)
    report = ingest(yahoo, market, make("A", SESSIONS[:2]))["A"]
    assert (report.rows, report.faults, report.days[SECOND.day.isoformat()]) == (60 + 30, {"forming": 1}, "partial")
    assert stored(market)["A"].same_as(final.part(slice(0, 90)))
    yahoo.bars, yahoo.now = {"A": forming}, NEXT_DAY
    report = ingest(yahoo, market, make("A", run_id="r2"))["A"]
    assert list(yahoo.asked) == [("A", span(SECOND, THIRD))]
    assert (report.status, report.rows, report.held) == ("complete", 160, 90)
    assert_holds(market, yahoo)


def test_of_two_copies_of_a_bar_the_one_that_was_stored_last_is_read(yahoo: FakeYahoo) -> None:
    market = bucket()
    yahoo.bars = {"A": walk("an early mistake", *SESSIONS)}
    ingest(yahoo, market, make("A"))
    yahoo.bars = {"A": walk("A", *SESSIONS)}
    ingest(yahoo, market, make("A", run_id="r2"), refetch=True)
    assert_holds(market, yahoo)


def test_when_told_to_refetch_a_run_asks_for_what_is_held(yahoo: FakeYahoo) -> None:
    market = bucket()
    ingest(yahoo, market, make())
    ingest(yahoo, market, make(), refetch=True)
    assert yahoo.tickers_asked() == {"A", "B", "C"}
    assert copies(market) == 3 * 160  # its own part is overwritten


def test_an_answer_whose_bars_are_gone_counts_for_nothing(yahoo: FakeYahoo) -> None:
    market, plan = bucket(), make()
    ingest(yahoo, market, plan)
    market.delete(contract.bars_key(SECOND.day, part_of(plan)))
    reports = ingest(yahoo, market, make(run_id="r2"))
    assert set(yahoo.asked) == {(ticker, span(SECOND, SECOND)) for ticker in "ABC"}
    assert {report.held for report in reports.values()} == {100}
    assert_holds(market, yahoo)


def test_an_answer_of_this_very_run_whose_bars_are_gone_counts_for_nothing_either(yahoo: FakeYahoo) -> None:
    market, plan = bucket(), make("A")
    ingest(yahoo, market, plan)
    market.delete(contract.bars_key(FIRST.day, part_of(plan)))
    yahoo.bars["A"] = joined(walk("A", FIRST, minutes=range(20)), walk("A", SECOND, THIRD))
    assert ingest(yahoo, market, plan)["A"].rows == 120
    assert ingest(yahoo, market, make("A", run_id="r2"))["A"].rows == 120


# --- what is asked again -------------------------------------------------------------------------


def asked_after_runs_at(yahoo: FakeYahoo, *at: timedelta) -> list[bool]:
    """Whether Yahoo was asked about the first session by runs so long after its close."""
    market, asked = bucket(), []
    for i, after_close in enumerate(at):
        yahoo.now = utc(FIRST.close_ts) + after_close
        ingest(yahoo, market, make("A", SESSIONS[:1], run_id=f"r{i}"))
        asked.append(bool(yahoo.asked))
    return asked


def test_a_day_that_is_whole_is_asked_for_until_a_quarter_of_an_hour_after_its_close(yahoo: FakeYahoo) -> None:
    minutes = (-10, 1, 14, 15, 16)
    assert asked_after_runs_at(yahoo, *(timedelta(minutes=m) for m in minutes)) == [True, True, True, True, False]


def test_a_day_that_stays_short_is_asked_for_until_a_day_after_its_close(yahoo: FakeYahoo) -> None:
    yahoo.bars["A"] = walk("A", FIRST, minutes=range(30))
    assert asked_after_runs_at(yahoo, HOUR, 23 * HOUR, DAY, DAY + HOUR, 20 * DAY) == [True, True, True, False, False]


def test_a_ticker_that_never_trades_is_not_asked_for_for_ever(yahoo: FakeYahoo) -> None:
    yahoo.bars["A"] = walk("A")
    assert asked_after_runs_at(yahoo, HOUR, DAY, 2 * DAY) == [True, True, False]


def test_a_ticker_that_is_delisted_is_asked_for_by_each_run(yahoo: FakeYahoo) -> None:
    del yahoo.bars["A"]
    assert asked_after_runs_at(yahoo, DAY, 2 * DAY, 3 * DAY) == [True, True, True]


def test_minutes_that_come_late_are_added_to_those_that_are_held(yahoo: FakeYahoo) -> None:
    market = bucket()
    yahoo.now = utc(FIRST.close_ts) + HOUR
    yahoo.bars["A"] = walk("A", FIRST, minutes=range(40))
    ingest(yahoo, market, make("A", SESSIONS[:1]))
    yahoo.bars["A"] = walk("A", FIRST, minutes=range(20, 60))
    report = ingest(yahoo, market, make("A", SESSIONS[:1], run_id="r2"))["A"]
    assert (report.status, report.rows, report.held) == ("complete", 60, 40)
    assert stored(market)["A"].same_as(walk("A", FIRST))


def test_the_second_attempt_keeps_what_the_first_one_stored(yahoo: FakeYahoo) -> None:
    market, plan = bucket(), make("AB", SESSIONS[:1])
    yahoo.now = utc(FIRST.close_ts) + HOUR
    yahoo.bars["A"] = walk("A", FIRST, minutes=range(30))
    yahoo.errors["B"] = [DROPPED] * 2
    assert ingest(yahoo, market, plan)["B"].status == "failed"
    yahoo.bars["A"] = walk("A", FIRST, minutes=range(20, 50))
    reports = ingest(yahoo, market, plan)
    assert yahoo.tickers_asked() == {"A", "B"}
    assert (reports["A"].rows, reports["A"].held, reports["B"].status) == (50, 30, "complete")
    assert stored(market)["A"].same_as(walk("A", FIRST, minutes=range(50)))
    assert len(read_parts(market, FIRST)) == 1


# --- killed and tried again ----------------------------------------------------------------------


def test_a_shard_that_is_killed_and_tried_again_asks_only_for_the_rest(yahoo: FakeYahoo) -> None:
    market, told = bucket(), list[str]()
    yahoo.errors["C"] = [Killed()]
    with pytest.raises(Killed):
        ingest(yahoo, market, make(), in_flight=1)
    assert yahoo.tickers_asked() == {"A", "B", "C"}
    assert not market.keys(contract.BARS_PREFIX)
    reports = ingest(yahoo, market, make(), on_ticker=lambda report: told.append(report.ticker))
    assert yahoo.tickers_asked() == {"C"}
    assert sorted(told) == ["A", "B", "C"]
    assert {(report.status, report.fetch.requests) for report in reports.values()} == {("complete", 1)}
    assert_holds(market, yahoo)
    assert not market.keys("runs/r/journal/")


def test_a_ticker_that_failed_before_the_kill_is_tried_again(yahoo: FakeYahoo) -> None:
    market = bucket()
    yahoo.errors["A"], yahoo.errors["C"] = [DROPPED] * 2, [Killed()]
    with pytest.raises(Killed):
        ingest(yahoo, market, make(), in_flight=1)
    reports = ingest(yahoo, market, make())
    assert "A" in yahoo.tickers_asked()
    assert {report.status for report in reports.values()} == {"complete"}
    assert_holds(market, yahoo)


def test_what_is_written_down_now_and_then_is_fetched_again_at_most_since_the_last_time(yahoo: FakeYahoo) -> None:
    market = bucket()
    yahoo.errors["C"] = [Killed()]
    with pytest.raises(Killed):
        ingest(yahoo, market, make(), in_flight=1, journal_s=600)
    assert market.keys("") == []
    ingest(yahoo, market, make())
    assert yahoo.tickers_asked() == {"A", "B", "C"}


def test_a_journal_about_other_days_counts_for_nothing(yahoo: FakeYahoo) -> None:
    market = bucket()
    yahoo.errors["C"] = [Killed()]
    with pytest.raises(Killed):
        ingest(yahoo, market, make(sessions=SESSIONS[:2]), in_flight=1)
    reports = ingest(yahoo, market, make())  # started again a day later: the plan has one more day
    days = {session.day.isoformat() for session in SESSIONS}
    assert all(report.days.keys() == days for report in reports.values())
    assert {report.status for report in reports.values()} == {"complete"}
    assert_holds(market, yahoo)
    assert not market.keys("runs/r/journal/")


@given(kills=st.lists(st.integers(0, 14), max_size=4))
@examples(max_examples=25)
def test_wherever_a_shard_is_killed_the_next_attempt_ends_with_every_bar_once_and_asks_for_nothing_that_is_stored(
    kills: list[int],
) -> None:
    yahoo = FakeYahoo({ticker: walk(ticker, *SESSIONS) for ticker in "ABC"}, NEXT_DAY)
    s3 = CrashingS3()
    market, plan, stored_before = bucket(s3), make(), set[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect, "_CLIENTS", {"direct": yahoo.client})
        for changes in kills:
            s3.changes_left = changes
            stored_before = held_or_journaled(market, plan)
            try:
                ingest(yahoo, market, plan)
            except Killed:
                assert not yahoo.tickers_asked() & stored_before
            s3.changes_left = None
        stored_before = held_or_journaled(market, plan)
        reports = ingest(yahoo, market, plan)
        assert not yahoo.tickers_asked() & stored_before
    assert {(report.status, report.rows) for report in reports.values()} == {("complete", 160)}
    assert_holds(market, yahoo)
    assert copies(market) == 3 * 160
    assert not market.keys("runs/r/journal/")
    assert all(len(get_bars(market, key)) for key in market.keys(contract.BARS_PREFIX))


def held_or_journaled(market: Bucket, plan: Plan) -> set[str]:
    """The tickers of which all is in S3, stored by day or in the journal."""
    from app.ingest.journal import Journal

    answers = read_answers(market, SESSIONS, plan.tickers)
    by_day = {ticker for ticker, days in answers.items() if len(days) == len(SESSIONS)}
    return by_day | Journal(market, plan.run_id, plan.shards[0].name).read().keys()

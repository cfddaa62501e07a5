"""One worker's part of the ingest, over an S3 in memory: nothing is asked twice, no crash loses or doubles a bar."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from app import contract
from app.errors import StorageError
from app.ingest import collect, shard
from app.ingest.answers import read_answers
from app.ingest.bars import bars_of, get_bars, read_bars, read_parts
from app.ingest.chart import PassingFailure, Refused
from app.ingest.compact import compact_days
from app.ingest.journal import Journal
from app.ingest.plan import Plan, Span, make_plan
from app.ingest.report import TickerReport
from app.ingest.shard import ingest_shard
from app.ingest.ticker_bars import TickerBars
from app.progress import silent
from app.sessions import Session, utc
from app.settings import IngestSettings
from app.storage import Bucket
from tests.fakes import CrashingS3, FakeS3, Killed, bucket, client_error, make_sessions
from tests.yahoo import FakeYahoo, joined, minutes_after, walk

SESSIONS = FIRST, SECOND, THIRD = make_sessions(60, 60, 40)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NEXT_DAY = utc(THIRD.close_ts) + DAY
DROPPED = PassingFailure("the connection ended")


def make(tickers: str = "ABC", sessions: Sequence[Session] = SESSIONS, run_id: str = "r") -> Plan:
    return make_plan(run_id, list(tickers), sessions, shards=1, request_days=7)


class AtOnce(ThreadPoolExecutor):
    """Does what is submitted before it goes on, so that a test knows what is in the journal."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        """As the original, done."""
        done = super().submit(work, *args, **named)
        wait([done])
        return done


@pytest.fixture
def yahoo(monkeypatch: pytest.MonkeyPatch) -> FakeYahoo:
    """Knows A, B and C, a day after the last session; the journal is written at once."""
    fake = FakeYahoo({ticker: walk(ticker, *SESSIONS) for ticker in "ABC"}, NEXT_DAY)
    monkeypatch.setattr(collect, "_CLIENTS", {"direct": fake.client})
    monkeypatch.setattr(shard, "ThreadPoolExecutor", AtOnce)
    return fake


def ingest(
    yahoo: FakeYahoo, market: Bucket, plan: Plan, *, on_ticker: Any = lambda report: None, **settings: Any
) -> dict[str, TickerReport]:
    """Ingest the plan's only shard; what Yahoo was asked is counted anew."""
    yahoo.asked.clear()
    chosen = IngestSettings(**{"rate_per_s": 0, "backoff_s": 0, "journal_s": 0, "attempts": 2, **settings})
    (only,) = plan.shards
    reports = ingest_shard(plan, only, market, chosen, yahoo_url=None, clock=yahoo.clock, on_ticker=on_ticker)
    assert [report.ticker for report in reports] == list(only.tickers)
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


def part_of(market: Bucket, plan: Plan, session: Session) -> str:
    """The one part of a session that the plan's shard wrote."""
    (part,) = {contract.part_of(key) for key in market.keys(contract.bars_day_prefix(session.day))}
    assert part.startswith(contract.shard_part(plan.run_id, plan.shards[0].name, ""))
    return part


def span(first: Session, last: Session) -> Span:
    return Span(first.open_ts, last.close_ts)


# --- what is written -----------------------------------------------------------------------------


def test_a_shard_leaves_one_part_a_day_its_answers_and_a_manifest(yahoo: FakeYahoo) -> None:
    market, plan = bucket(), make()
    reports = ingest(yahoo, market, plan)
    parts = [(session.day, part_of(market, plan, session)) for session in SESSIONS]
    assert market.keys("") == [
        *(contract.answers_key(*part) for part in parts),
        *(contract.bars_key(*part) for part in parts),
        contract.manifest_key("r", plan.shards[0].name),
    ]
    assert_holds(market, yahoo)
    manifest = market.get_json(contract.manifest_key("r", plan.shards[0].name))
    assert manifest["shard"] == plan.shards[0].name
    assert [TickerReport.from_json(line) for line in manifest["tickers"]] == list(reports.values())
    assert {report.status for report in reports.values()} == {"complete"}


def test_bars_come_before_their_answers_these_before_the_manifest_and_the_journal_ends_last(yahoo: FakeYahoo) -> None:
    s3, plan = CrashingS3(), make()
    market = bucket(s3)
    ingest(yahoo, market, plan)
    at = {change: i for i, change in enumerate(s3.changes)}
    manifest = at["put", contract.manifest_key("r", plan.shards[0].name)]
    for session in SESSIONS:
        part = part_of(market, plan, session)
        bars, answers = (key(session.day, part) for key in (contract.bars_key, contract.answers_key))
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
    assert copies(market) == 3 * 160  # the same bars have the same key


def test_an_answer_whose_bars_are_gone_counts_for_nothing(yahoo: FakeYahoo) -> None:
    market, plan = bucket(), make()
    ingest(yahoo, market, plan)
    market.delete(contract.bars_key(SECOND.day, part_of(market, plan, SECOND)))
    reports = ingest(yahoo, market, make(run_id="r2"))
    assert set(yahoo.asked) == {(ticker, span(SECOND, SECOND)) for ticker in "ABC"}
    assert {report.held for report in reports.values()} == {100}
    assert_holds(market, yahoo)


def test_an_answer_of_this_very_run_whose_bars_are_gone_counts_for_nothing_either(yahoo: FakeYahoo) -> None:
    market, plan = bucket(), make("A")
    ingest(yahoo, market, plan)
    market.delete(contract.bars_key(FIRST.day, part_of(market, plan, FIRST)))
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
    assert [len(part) for part in read_parts(market, FIRST)] == [30, 30 + 60]


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
    assert {report.status for report in reports.values()} == {"complete"}
    assert {ticker: report.fetch.requests for ticker, report in reports.items()} == {"A": 0, "B": 0, "C": 1}
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
        patch.setattr(shard, "ThreadPoolExecutor", AtOnce)
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
    compact_days(market, SESSIONS, silent)
    assert copies(market) == 3 * 160
    assert_holds(market, yahoo)
    assert not market.keys("runs/r/journal/")
    assert all(len(get_bars(market, key)) for key in market.keys(contract.BARS_PREFIX))


def held_or_journaled(market: Bucket, plan: Plan) -> set[str]:
    """The tickers of which all is in S3, stored by day or in the journal."""
    answers = read_answers(market, SESSIONS, plan.tickers)
    journaled = Journal(market, plan.run_id, plan.shards[0].name).read()
    days = {
        ticker: {*answers.get(ticker, {}), *(journaled[ticker].answers if ticker in journaled else ())}
        for ticker in plan.tickers
    }
    return {ticker for ticker, found in days.items() if len(found) == len(SESSIONS)}


def by_day(tickers: str = "AC") -> Plan:
    return make_plan("r", list(tickers), SESSIONS, shards=1, request_days=1)


def killed(yahoo: FakeYahoo, market: Bucket, plan: Plan, **settings: Any) -> None:
    """Ingest until C is asked for."""
    yahoo.errors["C"] = [Killed()]
    with pytest.raises(Killed):
        ingest(yahoo, market, plan, in_flight=1, **settings)


def test_of_a_ticker_that_failed_in_part_before_the_kill_only_that_part_is_asked_for(yahoo: FakeYahoo) -> None:
    market, failing = bucket(), span(SECOND, SECOND)
    yahoo.errors["A", failing] = [Refused("400")]
    killed(yahoo, market, by_day())
    report = ingest(yahoo, market, by_day())["A"]
    assert {asked for ticker, asked in yahoo.asked if ticker == "A"} == {failing}
    assert (report.status, report.rows, report.held, report.fetch.requests) == ("complete", 160, 0, 1)
    assert stored(market, tickers="A")["A"].same_as(yahoo.bars["A"])


def test_a_shard_that_is_killed_twice_goes_on_from_all_that_it_fetched(yahoo: FakeYahoo) -> None:
    market, failing = bucket(), span(SECOND, SECOND)
    yahoo.errors["A", failing] = [Refused("400")]
    killed(yahoo, market, by_day("ABC"))
    killed(yahoo, market, by_day("ABC"))
    assert {(ticker, asked) for ticker, asked in yahoo.asked if ticker != "C"} == {("A", failing)}
    ingest(yahoo, market, by_day("ABC"))
    assert yahoo.tickers_asked() == {"C"}
    assert_holds(market, yahoo)


def test_a_session_that_ran_at_the_kill_is_asked_for_again_and_whole_after_its_close(yahoo: FakeYahoo) -> None:
    market, plan = bucket(), make("AC")
    yahoo.now = minutes_after(THIRD, 20.5)
    killed(yahoo, market, plan)
    yahoo.now = NEXT_DAY
    report = ingest(yahoo, market, plan)["A"]
    assert [asked for ticker, asked in yahoo.asked if ticker == "A"] == [span(THIRD, THIRD)]
    assert (report.status, report.rows) == ("complete", 160)
    assert stored(market, tickers="A")["A"].same_as(yahoo.bars["A"])


def test_what_a_run_that_refetches_fetched_before_the_kill_is_not_asked_for_again(yahoo: FakeYahoo) -> None:
    market, final = bucket(), yahoo.bars
    yahoo.bars = {ticker: walk(f"{ticker} by mistake", *SESSIONS) for ticker in "ABC"}
    ingest(yahoo, market, make(run_id="r0"))
    yahoo.bars = final
    killed(yahoo, market, make(), refetch=True)
    assert yahoo.tickers_asked() == {"A", "B", "C"}
    reports = ingest(yahoo, market, make(), refetch=True)
    assert yahoo.tickers_asked() == {"C"}
    assert {report.held for report in reports.values()} == {160}
    assert_holds(market, yahoo)


# --- the journal's thread ------------------------------------------------------------------------


class WatchedS3(FakeS3):
    """Notes the threads that write the journal; refuses what it is told to refuse."""

    def __init__(self, refused: str = "nothing") -> None:
        super().__init__()
        self.refused = refused
        self.threads: set[str] = set()

    def put_object(self, **call: Any) -> dict[str, Any]:
        """As FakeS3's."""
        if "/journal/" in call["Key"]:
            self.threads.add(threading.current_thread().name)
        if self.refused in call["Key"]:
            raise client_error("AccessDenied", "PutObject")
        return super().put_object(**call)


def test_the_journal_is_written_in_a_thread_of_its_own(yahoo: FakeYahoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "ThreadPoolExecutor", ThreadPoolExecutor)
    s3, before = WatchedS3(), threading.active_count()
    ingest(yahoo, bucket(s3), make())
    assert s3.threads == {"journal_0"}
    assert threading.active_count() == before


@pytest.mark.parametrize("executor", [ThreadPoolExecutor, AtOnce])
@pytest.mark.parametrize("tickers", ["A", "ABC"])
def test_an_error_of_the_journal_ends_the_shard_as_one_of_the_storage(
    yahoo: FakeYahoo, monkeypatch: pytest.MonkeyPatch, executor: type[ThreadPoolExecutor], tickers: str
) -> None:
    monkeypatch.setattr(shard, "ThreadPoolExecutor", executor)
    market = bucket(WatchedS3("/journal/"))
    with pytest.raises(StorageError, match=r"S3 refused PutObject on s3://fake/runs/r/journal/.*AccessDenied"):
        ingest(yahoo, market, make(tickers))
    assert market.keys("") == []

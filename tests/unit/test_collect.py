"""One worker's requests: which spans are asked for, what comes of them, and that tickers do not disturb each other."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from app.errors import StorageError
from app.ingest import collect
from app.ingest.answers import DayAnswer
from app.ingest.chart import PassingFailure, RateLimited
from app.ingest.collect import Collected, collect_shard, wanted_spans
from app.ingest.counts import FetchCount
from app.ingest.pacing import Pacer
from app.ingest.plan import Plan, Shard, Span, make_plan
from app.sessions import Session, utc
from app.settings import IngestSettings
from tests.fakes import make_sessions
from tests.yahoo import FakeYahoo, joined, walk

SESSIONS = FIRST, SECOND, THIRD = make_sessions(60, 60, 40)
NEXT_WEEK = utc(THIRD.close_ts) + timedelta(days=7)
DROPPED = PassingFailure("the connection ended")
Held = Mapping[str, Mapping[date, DayAnswer]]


def make(tickers: str, request_days: int = 7) -> Plan:
    return make_plan("r", list(tickers), SESSIONS, shards=1, request_days=request_days)


@pytest.fixture
def yahoo(monkeypatch: pytest.MonkeyPatch) -> FakeYahoo:
    """Knows A, B and C, a week later."""
    fake = FakeYahoo({ticker: walk(ticker, *SESSIONS) for ticker in "ABC"}, NEXT_WEEK)
    monkeypatch.setattr(collect, "_CLIENTS", {"direct": fake.client})
    return fake


def collected(
    yahoo: FakeYahoo, plan: Plan, held: Held | None = None, on_ticker: Any = lambda one: None, **settings: Any
) -> dict[str, Collected]:
    chosen = IngestSettings(**{"rate_per_s": 0, "backoff_s": 0, **settings})
    return collect_shard(
        plan, plan.shards[0], chosen, yahoo_url=None, clock=yahoo.clock, held=held, on_ticker=on_ticker
    )


def settled(missing: str = "") -> DayAnswer:
    return DayAnswer(int(NEXT_WEEK.timestamp()), True, missing)


def span(first: Session, last: Session) -> Span:
    return Span(first.open_ts, last.close_ts)


def test_every_ticker_is_collected_whole_in_the_order_of_the_shard(yahoo: FakeYahoo) -> None:
    found = collected(yahoo, make("CAB"))
    assert list(found) == ["C", "A", "B"]
    for ticker, one in found.items():
        assert one.bars.same_as(yahoo.bars[ticker])
        assert (one.report.status, one.report.rows, one.report.held) == ("complete", 160, 0)
        assert one.report.fetch == FetchCount(requests=1)
        assert one.answers == {session.day: settled() for session in SESSIONS}
    assert yahoo.asked == {(ticker, span(FIRST, THIRD)): 1 for ticker in "ABC"}


def test_each_ticker_is_told_once_as_it_is_finished(yahoo: FakeYahoo) -> None:
    told: list[Collected] = []
    found = collected(yahoo, make("ABC"), on_ticker=told.append)
    assert sorted(one.report.ticker for one in told) == ["A", "B", "C"]
    assert all(found[one.report.ticker] is one for one in told)


def test_a_shard_without_tickers_collects_nothing(yahoo: FakeYahoo) -> None:
    plan = make("A")
    empty = Shard("s", ())
    assert collect_shard(plan, empty, IngestSettings(), yahoo_url=None, clock=yahoo.clock) == {}


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_ticker_that_yahoo_does_not_know_is_delisted_and_disturbs_no_other(yahoo: FakeYahoo) -> None:
    found = collected(yahoo, make("AXB"))
    assert [one.report.status for one in found.values()] == ["complete", "delisted", "complete"]
    assert found["X"].report.error == "X: No data found, symbol may be delisted"
    assert (found["X"].answers, len(found["X"].bars)) == ({}, 0)


def test_a_ticker_that_failed_says_why_and_disturbs_no_other(yahoo: FakeYahoo) -> None:
    yahoo.errors["B"] = [DROPPED] * 9
    found = collected(yahoo, make("ABC"), attempts=3)
    assert [one.report.status for one in found.values()] == ["complete", "failed", "complete"]
    report = found["B"].report
    assert report.error == "B: 3 attempts failed, last: the connection ended"
    assert set(report.days.values()) == {"failed"}
    assert report.fetch == FetchCount(requests=3, retries=2)


def test_of_a_ticker_that_failed_on_one_day_the_other_days_are_kept(yahoo: FakeYahoo) -> None:
    yahoo.errors["A", span(SECOND, SECOND)] = [DROPPED] * 2
    one = collected(yahoo, make("A", request_days=1), attempts=2)["A"]
    assert [one.report.days[session.day.isoformat()] for session in SESSIONS] == ["complete", "failed", "complete"]
    assert one.bars.same_as(walk("A", FIRST, THIRD))
    assert one.answers.keys() == {FIRST.day, THIRD.day}
    assert one.report.fetch == FetchCount(requests=4, retries=1)


def test_what_passes_leaves_no_trace_but_its_counts(yahoo: FakeYahoo) -> None:
    yahoo.errors["A"] = [DROPPED, RateLimited("429"), DROPPED]
    one = collected(yahoo, make("A"))["A"]
    assert one.bars.same_as(yahoo.bars["A"])
    assert one.report.fetch == FetchCount(requests=4, retries=3, rate_limited=1)


def test_faults_of_all_requests_are_summed(yahoo: FakeYahoo) -> None:
    yahoo.bars["A"] = joined(*(walk("A", s).part(np.r_[0, 0, 1 : s.minutes]) for s in SESSIONS))
    one = collected(yahoo, make("A", request_days=1))["A"]
    assert one.report.faults == {"repeated": 3}
    assert one.bars.same_as(walk("A", *SESSIONS))


class Broken(Exception):
    pass


@pytest.mark.parametrize("error", [StorageError("S3 does not answer"), Broken("a bug"), KeyboardInterrupt()])
def test_what_the_caller_raises_ends_the_worker_and_arrives_as_it_is(yahoo: FakeYahoo, error: BaseException) -> None:
    def fail(one: Collected) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        collected(yahoo, make("ABC"), on_ticker=fail)
    assert caught.value is error


# --- the budget ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate_per_s", "at_once", "share"), [(50, 1, 50), (50, 0, 10), (50, 2, 25), (0, 5, 0)])
def test_the_budget_of_requests_is_divided_over_the_workers_of_the_plan(
    yahoo: FakeYahoo, monkeypatch: pytest.MonkeyPatch, rate_per_s: float, at_once: int, share: float
) -> None:
    limits = list[float]()

    def noted(limit_per_s: float) -> Pacer:
        limits.append(limit_per_s)
        return Pacer()

    monkeypatch.setattr(collect, "Pacer", noted)
    plan = make_plan("r", list("ABCDE"), SESSIONS, shards=5, request_days=7, at_once=at_once)
    collected(yahoo, plan, rate_per_s=rate_per_s)
    assert limits == [share]


# --- what is held --------------------------------------------------------------------------------


def test_what_is_held_and_settled_is_not_asked_for_and_counts_as_held(yahoo: FakeYahoo) -> None:
    held = {"A": {session.day: settled() for session in SESSIONS}}
    found = collected(yahoo, make("AB"), held)
    assert yahoo.tickers_asked() == {"B"}
    report = found["A"].report
    assert (report.status, report.rows, report.held, report.fetch.requests) == ("complete", 160, 160, 0)
    assert (found["A"].answers, len(found["A"].bars)) == ({}, 0)


def test_of_a_span_only_the_days_that_are_not_settled_are_asked_for(yahoo: FakeYahoo) -> None:
    unsure = DayAnswer(int(NEXT_WEEK.timestamp()), False, "0-29")
    one = collected(yahoo, make("A"), {"A": {FIRST.day: settled(), SECOND.day: unsure, THIRD.day: settled()}})["A"]
    assert list(yahoo.asked) == [("A", span(SECOND, SECOND))]
    assert one.answers.keys() == {SECOND.day}
    assert (one.report.status, one.report.rows, one.report.held) == ("complete", 160, 130)


def test_a_short_day_that_is_held_and_answered_short_again_in_other_minutes_holds_both(yahoo: FakeYahoo) -> None:
    yahoo.bars["A"] = joined(walk("A", FIRST, minutes=range(40)), walk("A", SECOND, THIRD))
    held = {"A": {FIRST.day: DayAnswer(FIRST.close_ts, True, "0-29"), SECOND.day: settled(), THIRD.day: settled()}}
    one = collected(yahoo, make("A"), held)["A"]
    assert one.answers == {FIRST.day: settled("40-59")}
    assert (one.report.status, one.report.rows, one.report.held) == ("complete", 160, 130)


def test_all_is_asked_for_again_when_told_so_and_still_counts_as_held(yahoo: FakeYahoo) -> None:
    one = collected(yahoo, make("A"), {"A": {session.day: settled() for session in SESSIONS}}, refetch=True)["A"]
    assert list(yahoo.asked) == [("A", span(FIRST, THIRD))]
    assert (len(one.bars), one.report.rows, one.report.held) == (160, 160, 160)


def test_a_day_of_a_ticker_that_is_delisted_by_now_keeps_what_is_held(yahoo: FakeYahoo) -> None:
    report = collected(yahoo, make("X"), {"X": {FIRST.day: settled()}})["X"].report
    assert [report.days[s.day.isoformat()] for s in SESSIONS] == ["complete", "delisted", "delisted"]
    assert (report.status, report.rows) == ("delisted", 60)


# --- which spans are wanted ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_days", "held", "wanted"),
    [
        (7, [], [[0, 1, 2]]),
        (1, [], [[0], [1], [2]]),
        (7, [0], [[1, 2]]),
        (7, [2], [[0, 1]]),
        (7, [1], [[0], [2]]),
        (2, [1], [[0], [2]]),
        (2, [], [[0, 1], [2]]),
        (2, [0], [[1], [2]]),
        (7, [0, 1, 2], []),
    ],
)
def test_a_request_holds_only_sessions_that_follow_each_other_and_are_wanted(
    request_days: int, held: list[int], wanted: list[list[int]]
) -> None:
    answers = {SESSIONS[i].day: settled() for i in held}
    spans = wanted_spans(make("A", request_days), answers, 0.9)
    assert [[SESSIONS.index(session) for session in asked] for asked in spans] == wanted


def test_an_answer_that_settles_nothing_is_no_reason_not_to_ask() -> None:
    early = {session.day: DayAnswer(session.close_ts, True, "") for session in SESSIONS}
    assert wanted_spans(make("A"), early, 0.9) == [SESSIONS]

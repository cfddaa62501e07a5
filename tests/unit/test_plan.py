"""The plan: every minute in exactly one request that Yahoo accepts, every ticker in exactly one shard."""

from __future__ import annotations

import json
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import UniverseError
from app.ingest.plan import Plan, cut_spans, make_plan
from app.sessions import Session, sessions_between, utc
from app.storage import to_json
from tests.fakes import make_sessions

DAY_S = 86_400


def of_autumn() -> tuple[Session, ...]:
    """Real sessions over a change of clocks, a holiday and a half day."""
    return sessions_between(date(2025, 10, 20), date(2025, 12, 31))


@given(first=st.integers(0, 40), count=st.integers(1, 30), request_days=st.integers(1, 7))
def test_spans_hold_every_minute_once_and_none_is_longer_than_asked(first: int, count: int, request_days: int) -> None:
    sessions = of_autumn()[first:][:count]
    spans = cut_spans(sessions, request_days)
    for session in sessions:
        for minute in (session.open_ts, session.close_ts - 60):  # spans are whole: first and last tell of all
            assert sum(span.start_ts <= minute < span.end_ts for span in spans) == 1
    for span in spans:
        assert (utc(span.end_ts).date() - utc(span.start_ts).date()).days < request_days
        assert span.end_ts - span.start_ts <= 7 * DAY_S


def test_the_last_day_is_fetched_to_its_last_minute() -> None:
    sessions = of_autumn()
    assert cut_spans(sessions, 7)[-1].end_ts == sessions[-1].close_ts


def test_a_week_takes_one_request_and_a_month_five() -> None:
    assert len(cut_spans(sessions_between(date(2025, 12, 1), date(2025, 12, 5)), 7)) == 1
    assert len(cut_spans(sessions_between(date(2025, 12, 1), date(2025, 12, 31)), 7)) == 5
    assert len(cut_spans(sessions_between(date(2025, 12, 1), date(2025, 12, 5)), 1)) == 5


TICKERS = st.lists(st.text("ABCDEF", min_size=1, max_size=4), min_size=1, max_size=40, unique=True)


@given(universe=TICKERS, shards=st.integers(1, 12))
def test_shards_partition_the_universe_evenly(universe: list[str], shards: int) -> None:
    plan = make_plan("r", universe, make_sessions(390), shards=shards, request_days=7)
    assert sorted(t for shard in plan.shards for t in shard.tickers) == sorted(universe) == list(plan.tickers)
    sizes = [len(shard.tickers) for shard in plan.shards]
    assert len(sizes) == min(shards, len(universe))
    assert max(sizes) - min(sizes) <= 1
    assert len({shard.name for shard in plan.shards}) == len(plan.shards)


def test_shards_of_other_tickers_have_other_names_and_those_of_the_same_the_same() -> None:
    names = [
        make_plan(run_id, universe, make_sessions(390), shards=1, request_days=7).shards[0].name
        for run_id, universe in (("a", ["AAPL"]), ("a", ["MSFT"]), ("b", ["AAPL"]))
    ]
    assert names[0] == names[2] != names[1]
    assert all(name.startswith("0000-of-0001-") for name in names)


@pytest.mark.parametrize(
    ("shards", "at_once", "workers"), [(1, 0, 1), (4, 0, 4), (4, 3, 3), (4, 8, 4), (9, 8, 5), (4, 1, 1)]
)
def test_as_many_shards_as_there_is_room_for_share_the_budget_of_requests(
    shards: int, at_once: int, workers: int
) -> None:
    plan = make_plan("r", list("ABCDE"), make_sessions(390), shards=shards, request_days=7, at_once=at_once)
    assert plan.workers == workers


def test_closed_days_are_those_between_the_first_session_and_the_last() -> None:
    # Thanksgiving, the weekend after the half day, and no day beyond.
    sessions = sessions_between(date(2025, 11, 26), date(2025, 12, 1))
    plan = make_plan("r", ["AAPL"], sessions, shards=1, request_days=7)
    assert [session.minutes for session in sessions] == [390, 210, 390]
    assert plan.closed_days == ("2025-11-27", "2025-11-29", "2025-11-30")


def test_a_plan_of_one_day_has_no_closed_days() -> None:
    assert make_plan("r", ["AAPL"], make_sessions(390), shards=1, request_days=7).closed_days == ()


def test_a_plan_survives_its_json() -> None:
    plan = make_plan("r", ["AAPL", "MSFT", "IBM"], make_sessions(390, 210), shards=2, request_days=1, at_once=1)
    assert Plan.from_json(json.loads(to_json(plan.to_json()))) == plan


def test_a_plan_needs_a_ticker_and_a_session() -> None:
    with pytest.raises(UniverseError, match="the universe is empty"):
        make_plan("r", [], make_sessions(390), shards=1, request_days=7)
    with pytest.raises(UniverseError, match=r"no trading session in the asked days: raise ingest\.days"):
        make_plan("r", ["AAPL"], [], shards=1, request_days=7)

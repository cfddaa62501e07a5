"""A stream beside a feed of the running market: quiet is no fault, and the exchange's calendar ends it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app import contract
from app.clock import Clock, fixed_clock
from app.errors import ServingError
from app.ingest.plan import make_plan
from app.metrics import Metrics
from app.processes import StopSignals
from app.serving.batch_metrics import BatchMetrics
from app.serving.health import StreamHealth
from app.serving.run import _fed, _Hours, _result, _Watch, _with_those_before
from app.serving.sources import Begin, Source, make_source
from app.serving.stream import Watch, _until_fed
from app.sessions import sessions_between
from app.settings import ServingSettings
from tests.fakes import bucket, make_sessions
from tests.models import plain_spec
from tests.yahoo import minutes_after

BEFORE, SESSION = make_sessions(390, 390)
PLAN = make_plan("r", ["A"], (BEFORE,), shards=1, request_days=7)
GRACE_S = 300.0


def watch_at(clock: Clock, *, feed_alive: bool = False, told: list[Metrics] | None = None) -> _Watch:
    """The watch of a live stream; told: what it publishes."""
    market = bucket()
    metrics = BatchMetrics(fixed_clock(minutes_after(SESSION, -60)), (told or []).append)
    metrics._clock = clock
    health = StreamHealth(market, "r", clock, "m")
    return _Watch(lambda: feed_alive, _Hours(SESSION, GRACE_S, clock), StopSignals(), metrics, health)


@pytest.mark.parametrize(
    ("minutes", "expected"), [(-600, True), (0, True), (200, True), (390, True), (396.9, True), (397.1, False)]
)
def test_ticks_are_expected_until_the_feed_must_have_ended(minutes: float, expected: bool) -> None:
    watch = watch_at(fixed_clock(minutes_after(SESSION, minutes)))
    assert (watch.feed_alive(), watch.over()) == (expected, not expected)


def test_a_feed_of_ours_that_hangs_does_not_keep_the_stream_for_ever() -> None:
    assert not watch_at(fixed_clock(minutes_after(SESSION, 400)), feed_alive=True).feed_alive()


def test_no_prediction_is_missed_before_the_first_bar_has_closed() -> None:
    told: list[Metrics] = [{}]
    for minutes, expected in ((-10, 1), (0.9, 1), (1.1, 2)):
        watch_at(fixed_clock(minutes_after(SESSION, minutes)), told=told).polled()
        assert len(told) == expected


class QuietSource:
    """Has no ticks and no end."""

    where = "nowhere"

    def end(self) -> None:
        return None


def quiet_stream(watch: Watch, on_poll: Callable[[], None] = lambda: None) -> None:
    """A stream that gets no tick, until it ends."""
    query: Any = SimpleNamespace(isActive=True, recentProgress=[])
    settings = ServingSettings(idle_timeout_s=0.05, poll_s=0.01)
    watch.polled = on_poll  # type: ignore[method-assign]
    _until_fed(query, settings, cast(Source, QuietSource()), watch, None)


def test_a_quiet_stream_waits_in_the_session_and_ends_after_it() -> None:
    now = [minutes_after(SESSION, -30)]
    polls: list[datetime] = []

    def clock() -> datetime:
        return now[0]

    def on_poll() -> None:
        polls.append(now[0])
        if len(polls) == 20:  # four times idle_timeout_s
            now[0] = minutes_after(SESSION, 400)

    quiet_stream(watch_at(clock), on_poll)
    assert len(polls) >= 24  # and idle_timeout_s more, for ticks that are still on their way


def test_a_stream_that_was_done_but_for_its_result_ends_without_another_tick() -> None:
    """It was killed after its last micro-batch."""
    market, settings = bucket(), ServingSettings(idle_timeout_s=60, poll_s=0.01)
    market.put_json(contract.feed_end_key("r"), {"last_key": "k2"})
    source = make_source(Begin("r", "models", "m", ""), settings, market)
    query: Any = SimpleNamespace(isActive=True, recentProgress=[])
    _until_fed(query, settings, source, Watch(), "k2")


def test_a_quiet_replay_fails() -> None:
    with pytest.raises(ServingError, match=r"no tick for 0\.05 s from nowhere: start `stockflow feed`"):
        quiet_stream(Watch())


def test_what_the_stream_took_stands_for_the_end_that_a_feed_did_not_come_to() -> None:
    market = bucket()
    health = StreamHealth(market, "r", fixed_clock(minutes_after(SESSION, 400)), "m")
    health.counted.update(ticks=100, duplicate=3, revised=7)
    assert _fed(PLAN, SESSION, health, market) == {"ticks": 90, "objects": 390}
    market.put_json(contract.feed_end_key("r"), {"ticks": 91, "objects": 389})
    assert _fed(PLAN, SESSION, health, market) == {"ticks": 91, "objects": 389}


def test_a_stream_without_a_tick_or_without_a_prediction_has_no_result() -> None:
    market = bucket()
    health = StreamHealth(market, "r", fixed_clock(minutes_after(SESSION, 400)), "m")
    with pytest.raises(ServingError, match=f"no tick of {SESSION.day} came: start `stockflow feed` beside the stream"):
        _result(PLAN, SESSION, health, plain_spec(60), market, bucket())
    health.counted.update(ticks=5)
    with pytest.raises(ServingError, match="none of 5 ticks completed a window of 60 minutes"):
        _result(PLAN, SESSION, health, plain_spec(60), market, bucket())


def test_a_live_stream_is_warmed_from_the_sessions_before_by_the_calendar() -> None:
    (friday,) = sessions_between(date(2025, 11, 28), date(2025, 11, 28))
    assert [session.day.day for session in _with_those_before(friday)] == [25, 26, 28]  # Thanksgiving is the 27th

"""Which minutes exist: half days, holidays, daylight saving, and which sessions are recent."""

from __future__ import annotations

from datetime import UTC, date, datetime

from app.sessions import closed_sessions, last_sessions, market_day, recent_sessions, sessions_between, utc

THANKSGIVING = date(2025, 11, 27)
HALF_DAY = date(2025, 11, 28)


def test_thanksgiving_is_closed_and_the_day_after_has_210_minutes() -> None:
    sessions = sessions_between(date(2025, 11, 26), date(2025, 12, 1))
    assert [(s.day.day, s.minutes) for s in sessions] == [(26, 390), (28, 210), (1, 390)]
    assert utc(sessions[1].close_ts) == datetime(2025, 11, 28, 18, 0, tzinfo=UTC)


def test_the_open_moves_with_daylight_saving() -> None:
    friday, monday = sessions_between(date(2026, 3, 6), date(2026, 3, 9))
    assert utc(friday.open_ts) == datetime(2026, 3, 6, 14, 30, tzinfo=UTC)
    assert utc(monday.open_ts) == datetime(2026, 3, 9, 13, 30, tzinfo=UTC)
    assert friday.minutes == monday.minutes == 390


def test_days_without_a_session_give_none() -> None:
    assert sessions_between(THANKSGIVING, THANKSGIVING) == ()
    assert sessions_between(date(2025, 12, 6), date(2025, 12, 7)) == ()


def test_the_last_sessions_end_on_or_before_a_day() -> None:
    assert [s.day.day for s in last_sessions(3, date(2025, 11, 30))] == [25, 26, 28]
    assert len(last_sessions(60, date(2026, 1, 2))) == 60


def test_the_day_of_an_instant_is_new_yorks() -> None:
    assert market_day(datetime(2026, 3, 7, 4, 59, tzinfo=UTC)) == date(2026, 3, 6)  # 23:59 EST
    assert market_day(datetime(2026, 3, 9, 4, 0, tzinfo=UTC)) == date(2026, 3, 9)  # 00:00 EDT


def test_a_running_session_is_recent_and_one_that_has_not_opened_is_not() -> None:
    opened = datetime(2025, 12, 1, 14, 30, 1, tzinfo=UTC)
    assert [s.day.day for s in recent_sessions(opened, 4)] == [28, 1]
    assert [s.day.day for s in recent_sessions(opened.replace(second=0), 4)] == [28]


def test_a_session_has_closed_from_its_close_on() -> None:
    close = datetime(2025, 11, 28, 18, 0, tzinfo=UTC)  # of the half day
    assert [s.day.day for s in closed_sessions(close, 4)] == [25, 26, 28]
    assert [s.day.day for s in closed_sessions(close.replace(hour=17, minute=59), 4)] == [25, 26]


def test_a_session_is_recent_as_long_as_an_hour_is_left_to_ask_for_it() -> None:
    # Yahoo answers no request that starts more than so many times 24 hours ago.
    now = datetime(2025, 12, 3, 13, 30, tzinfo=UTC)
    assert recent_sessions(now, 5)[0].day == HALF_DAY
    assert recent_sessions(now.replace(second=1), 5)[0].day == date(2025, 12, 1)

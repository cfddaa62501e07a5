"""Trading sessions of the exchange calendar: the one place that knows which minutes exist.

Half days, holidays and daylight saving come from `exchange_calendars`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from app import contract

_MARGIN = timedelta(days=10)
"""A calendar must hold a session on either side; the longest closure of the last decades took six days."""

_TIME_TO_ASK = timedelta(hours=1)
"""The most that may pass between planning a run and its last request."""


@dataclass(frozen=True, order=True)
class Session:
    """One regular trading session: 390 minutes, 210 on a half day.

    day: New York date; open_ts: UTC epoch seconds of the first bar's start; minutes: bars in it.
    """

    day: date
    open_ts: int
    minutes: int

    @property
    def close_ts(self) -> int:
        """UTC epoch seconds of the close: the end of the last bar."""
        return self.open_ts + self.minutes * contract.BAR_S

    def since(self, ts: int) -> Session:
        """The part from one of its minutes on."""
        return Session(self.day, ts, (self.close_ts - ts) // contract.BAR_S)


Between = Callable[[date, date], Sequence[Session]]
"""Looks up the sessions from one day to another, both included, ascending."""


@lru_cache(maxsize=64)
def sessions_between(first: date, last: date) -> tuple[Session, ...]:
    """Sessions from `first` to `last`, both included, ascending; empty when the exchange stayed closed."""
    import exchange_calendars  # noqa: PLC0415  two seconds: only who asks for sessions pays

    calendar = exchange_calendars.get_calendar(
        contract.EXCHANGE_CALENDAR, start=(first - _MARGIN).isoformat(), end=(last + _MARGIN).isoformat()
    )
    bounds = zip(calendar.sessions, calendar.opens, calendar.closes, strict=True)
    return tuple(
        Session(label.date(), int(opened.timestamp()), int((closed - opened).total_seconds()) // contract.BAR_S)
        for label, opened, closed in bounds
        if first <= label.date() <= last
    )


def last_sessions(count: int, last_day: date) -> tuple[Session, ...]:
    """The `count` sessions that end with the last one on or before `last_day`, ascending."""
    # Five sessions in seven days less the holidays: two calendar days a session are always enough.
    return sessions_between(last_day - timedelta(days=2 * count + 10), last_day)[-count:]


def market_day(instant: datetime) -> date:
    """The New York date of an instant."""
    return instant.astimezone(ZoneInfo(contract.EXCHANGE_TIMEZONE)).date()


def recent_sessions(now: datetime, days: int, between: Between = sessions_between) -> tuple[Session, ...]:
    """Sessions that opened in the last `days` times 24 hours less one, a running one included.

    Yahoo answers no request that starts more than so many times 24 hours ago: with the hour to spare, the
    oldest session is still within them when it is asked for. between: where sessions are looked up.
    """
    oldest = now - timedelta(days=days) + _TIME_TO_ASK
    found = between(market_day(oldest), market_day(now))
    return tuple(s for s in found if oldest.timestamp() <= s.open_ts < now.timestamp())


def closed_sessions(now: datetime, days: int, between: Between = sessions_between) -> tuple[Session, ...]:
    """Those of `recent_sessions` that have closed: a running one lacks the bars that are still to come."""
    return tuple(s for s in recent_sessions(now, days, between) if s.close_ts <= now.timestamp())


def utc(ts: int) -> datetime:
    """Epoch seconds as an aware UTC datetime."""
    return datetime.fromtimestamp(ts, UTC)

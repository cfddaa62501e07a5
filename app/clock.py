"""The run's clock: UTC in data, and settable, so that tests and replays stand where they choose."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from app.errors import SettingsError

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """The machine's time, aware, in UTC."""
    return datetime.now(UTC)


def fixed_clock(now: datetime) -> Clock:
    """A clock that stands still at `now`."""
    return lambda: now


def clock_from_text(text: str | None) -> Clock:
    """The clock that an ISO 8601 instant asks for; None or an empty text means the machine's.

    Raises SettingsError when the text is no instant or names no time zone.
    """
    if not text:
        return system_clock
    try:
        now = datetime.fromisoformat(text)
    except ValueError as exc:
        raise SettingsError(f"now={text!r} is not an ISO 8601 instant such as 2026-03-24T20:30:00+00:00") from exc
    if now.tzinfo is None:
        raise SettingsError(f"now={text!r} names no time zone: add +00:00 for UTC")
    return fixed_clock(now.astimezone(UTC))

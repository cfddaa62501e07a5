"""The run's clock: the machine's, or standing where an instant says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.clock import clock_from_text, fixed_clock, system_clock
from app.errors import SettingsError


@pytest.mark.parametrize("text", [None, ""])
def test_without_an_instant_the_machines_time_is_meant(text: str | None) -> None:
    now = clock_from_text(text)()
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=60)
    assert now.tzinfo is UTC
    assert clock_from_text(text) is system_clock


@pytest.mark.parametrize("text", ["2026-03-24T20:30:00+00:00", "2026-03-24T20:30:00Z", "2026-03-24T16:30:00-04:00"])
def test_an_instant_stands_still_in_utc(text: str) -> None:
    clock = clock_from_text(text)
    assert clock() == clock() == datetime(2026, 3, 24, 20, 30, tzinfo=UTC)
    assert clock().tzinfo is UTC


def test_a_fixed_clock_says_what_it_was_given() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert fixed_clock(now)() is now


@pytest.mark.parametrize(
    ("text", "message"),
    [("yesterday", "is not an ISO 8601 instant such as"), ("2026-03-24T20:30:00", "names no time zone: add")],
)
def test_a_text_that_is_no_instant_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        clock_from_text(text)

"""Sessions from a file: the same as the calendar's, and an error beyond the file's end."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from app.errors import SettingsError
from app.sessions import recent_sessions, sessions_between
from app.workflow.session_table import SessionTable, to_table

FIRST, LAST = date(2025, 10, 1), date(2025, 12, 31)


@pytest.fixture
def table(tmp_path: Path) -> SessionTable:
    path = tmp_path / "sessions.json"
    path.write_text(json.dumps(to_table(sessions_between(FIRST, LAST))))
    return SessionTable.load(path)


def test_it_finds_what_the_calendar_finds(table: SessionTable) -> None:
    for first in (FIRST, date(2025, 11, 27), date(2025, 12, 6)):
        for days in (0, 1, 25):
            last = first + timedelta(days=days)
            assert table.between(first, last) == sessions_between(first, last)


def test_recent_sessions_are_the_same_with_either(table: SessionTable) -> None:
    for hour in range(24 * 4):
        now = datetime(2025, 11, 26, 0, 30, tzinfo=UTC) + timedelta(hours=hour)
        assert recent_sessions(now, 30, table.between) == recent_sessions(now, 30)


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        (FIRST, date(2026, 1, 1), "ends on 2025-12-31, before 2026-01-01: deploy again with a current stockflow"),
        (date(2025, 9, 30), LAST, "begins on 2025-10-01, after 2025-09-30: name a later `now`"),
    ],
)
def test_a_day_that_it_does_not_reach_is_an_error(table: SessionTable, first: date, last: date, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        table.between(first, last)
    assert str(caught.value) == f"the calendar of this deployment {message}"

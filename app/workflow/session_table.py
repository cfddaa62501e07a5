"""Sessions from a file: what a Lambda has in the place of the calendar library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from app.errors import SettingsError
from app.sessions import Session


def to_table(sessions: Iterable[Session]) -> list[list[str | int]]:
    """Rows [day, open_ts, minutes] of a sessions file: see app.sessions.Session."""
    return [[session.day.isoformat(), session.open_ts, session.minutes] for session in sessions]


class SessionTable:
    """Looks sessions up between the first and the last day of a table that is not empty."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = tuple(sorted(sessions))

    @classmethod
    def load(cls, path: Path) -> SessionTable:
        """The table of a JSON file that holds what `to_table` gives."""
        rows = json.loads(path.read_text(encoding="utf-8"))
        return cls([Session(date.fromisoformat(day), open_ts, minutes) for day, open_ts, minutes in rows])

    def between(self, first: date, last: date) -> tuple[Session, ...]:
        """As app.sessions.sessions_between; SettingsError for a day that the table does not reach."""
        begin, end = self._sessions[0].day, self._sessions[-1].day
        if last > end:
            raise SettingsError(
                f"the calendar of this deployment ends on {end}, before {last}: deploy again with a current stockflow"
            )
        if first < begin:
            raise SettingsError(f"the calendar of this deployment begins on {begin}, after {first}: name a later `now`")
        return tuple(session for session in self._sessions if first <= session.day <= last)

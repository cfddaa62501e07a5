"""Minutes without a bar, as arrays and as text."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.ingest.minutes import held_from_text, held_minutes, missing_text
from app.ingest.ticker_bars import Ints
from tests.fakes import make_sessions

FIRST, SECOND = make_sessions(20, 14)


def starts(*minutes: int) -> Ints:
    """Seconds of bars, by their minute in the second session; one of the day before is negative."""
    return np.array([SECOND.open_ts + 60 * minute for minute in minutes], np.int64)


@pytest.mark.parametrize(
    ("held", "text"),
    [
        ([1, 1, 1], ""),
        ([0, 0, 0], "0-2"),
        ([0, 1, 1], "0"),
        ([1, 1, 0], "2"),
        ([0, 0, 0, 0] + 13 * [1] + [0, 1], "0-3,17"),
        ([1, 0, 0, 1, 0, 1, 0, 0, 0], "1-2,4,6-8"),
        ([1], ""),
        ([0], "0"),
        ([], ""),
    ],
)
def test_minutes_that_are_missing_are_told_in_runs(held: list[int], text: str) -> None:
    assert missing_text(np.array(held, bool)) == text
    assert held_from_text(text, len(held)).tolist() == [bool(minute) for minute in held]


def test_a_minute_is_held_when_a_bar_starts_in_it() -> None:
    assert np.flatnonzero(held_minutes(starts(0, 3, 13), SECOND)).tolist() == [0, 3, 13]
    assert len(held_minutes(starts(), SECOND)) == 14
    assert not held_minutes(starts(), SECOND).any()
    assert held_minutes(starts(*range(14)), SECOND).all()


def test_bars_of_other_sessions_and_around_this_one_hold_nothing() -> None:
    day_before = [FIRST.open_ts, FIRST.open_ts + 60]
    ts = np.array([*day_before, *starts(-1, 5, 14, 700).tolist()], np.int64)
    assert np.flatnonzero(held_minutes(ts, SECOND)).tolist() == [5]
    assert np.flatnonzero(held_minutes(ts, FIRST)).tolist() == [0, 1]


@settings(derandomize=True)
@given(st.lists(st.booleans(), max_size=400))
def test_text_tells_every_minute(held: list[bool]) -> None:
    text = missing_text(np.array(held, bool))
    assert held_from_text(text, len(held)).tolist() == held
    said = [range(int(run.partition("-")[0]), int(run.rpartition("-")[2]) + 1) for run in text.split(",") if run]
    assert [minute for run in said for minute in run] == [minute for minute, bar in enumerate(held) if not bar]
    assert all(one.stop < other.start for one, other in pairwise(said))


@settings(derandomize=True)
@given(st.sets(st.integers(-3, 30)))
def test_the_minutes_of_bars_come_back_from_text(minutes: set[int]) -> None:
    held = held_minutes(starts(*sorted(minutes)), SECOND)
    back = held_from_text(missing_text(held), SECOND.minutes)
    assert np.flatnonzero(back).tolist() == sorted(minute for minute in minutes if 0 <= minute < 14)

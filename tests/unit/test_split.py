"""The split by time: whole sessions in order, and a gap that really is as long as it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dataset.split import Split, split_by_time
from app.errors import TooFewBars
from app.sessions import Session
from tests.fakes import make_sessions


def used(split: Split) -> list[int]:
    """Starts of all minutes that a part may use."""
    return [s.open_ts + 60 * minute for s in split.sessions for minute in range(split.minutes_of(s))]


def test_the_last_sessions_are_for_the_test_those_before_for_validation_and_the_rest_for_training() -> None:
    sessions = make_sessions(*[390] * 6)
    splits = split_by_time(list(reversed(sessions)), validation=1, test=2, gap_min=65)
    assert list(splits) == ["train", "validation", "test"]
    assert splits["train"].sessions == sessions[:3]
    assert splits["validation"].sessions == sessions[3:4]
    assert splits["test"].sessions == sessions[4:]


def test_only_the_last_session_before_another_part_is_cut() -> None:
    sessions = make_sessions(390, 390, 390, 390)
    splits = split_by_time(sessions, validation=1, test=1, gap_min=65)
    assert [splits["train"].minutes_of(s) for s in sessions[:2]] == [390, 325]
    assert splits["validation"].minutes_of(sessions[2]) == 325
    assert splits["test"].minutes_of(sessions[3]) == 390


@given(
    minutes=st.lists(st.integers(1, 30), min_size=3, max_size=9),
    validation=st.integers(1, 3),
    test=st.integers(1, 3),
    gap_min=st.integers(0, 70),
)
def test_between_two_parts_lie_as_many_trading_minutes_as_the_gap(
    minutes: list[int], validation: int, test: int, gap_min: int
) -> None:
    sessions: tuple[Session, ...] = make_sessions(*minutes)
    if validation + test >= len(sessions):
        with pytest.raises(TooFewBars, match="sessions are too few for"):
            split_by_time(sessions, validation=validation, test=test, gap_min=gap_min)
        return
    splits = split_by_time(sessions, validation=validation, test=test, gap_min=gap_min)
    trading = [s.open_ts + 60 * minute for s in sessions for minute in range(s.minutes)]
    for name, following in (("train", "validation"), ("validation", "test")):
        held = used(splits[name])
        begins = trading.index(splits[following].sessions[0].open_ts)
        own = sum(session.minutes for session in splits[name].sessions)
        assert held == trading[begins - own : begins - own + len(held)]
        assert len(held) == max(0, own - gap_min)
    assert used(splits["test"]) == trading[-sum(minutes[-test:]) :]


def test_too_few_sessions_are_told_what_to_change() -> None:
    with pytest.raises(TooFewBars, match=r"^3 sessions are too few for 1 validation and 2 test days and one to train"):
        split_by_time(make_sessions(390, 390, 390), validation=1, test=2, gap_min=65)

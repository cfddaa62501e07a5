"""What earlier runs were answered: when it settles a day, how answers join, and what counts as stored."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import contract
from app.ingest.answers import DayAnswer, join_parts, joined_by_day, part_body, read_answers, read_part
from app.ingest.bars import empty_bars
from app.ingest.minutes import held_from_text
from app.storage import Bucket
from app.tables import put_table
from tests.fakes import FakeS3, bucket, make_sessions

SESSIONS = FIRST, SECOND, THIRD = make_sessions(10, 10, 5)
CLOSE = FIRST.close_ts
QUARTER_S, DAY_S = 15 * 60, 86_400
NOTHING = "0-9"

MISSING = st.sampled_from(["", "0", "3", "9", "2-5", "0-4,7", "5-9", NOTHING])
ANSWERS = st.builds(DayAnswer, st.integers(CLOSE, CLOSE + 9), st.booleans(), MISSING)


def held(missing: str) -> set[int]:
    return {minute for minute, is_held in enumerate(held_from_text(missing, 10)) if is_held}


# --- settled -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked_s", "missing", "settled"),
    [
        (QUARTER_S, "", True),
        (QUARTER_S - 1, "", False),
        (-60, "", False),
        (QUARTER_S, "4", True),  # nine of ten are whole enough
        (QUARTER_S, "4,6", False),
        (DAY_S - 1, "4,6", False),
        (DAY_S, "4,6", True),
        (DAY_S, NOTHING, True),
    ],
)
def test_a_day_is_settled_when_whole_after_the_close_or_short_a_day_later(
    asked_s: int, missing: str, settled: bool
) -> None:
    assert DayAnswer(CLOSE + asked_s, True, missing).settles(FIRST, 0.9) is settled


@pytest.mark.parametrize("asked_s", [QUARTER_S, DAY_S, 30 * DAY_S])
def test_an_answer_that_nothing_confirmed_settles_nothing(asked_s: int) -> None:
    assert not DayAnswer(CLOSE + asked_s, False, "4,6").settles(FIRST, 0.9)


# --- joined --------------------------------------------------------------------------------------


def test_the_bars_of_either_answer_are_held_and_the_later_one_says_how_sure_that_is() -> None:
    early, late = DayAnswer(CLOSE, True, "0-4"), DayAnswer(CLOSE + 9, False, "3-9")
    for joined in (early.joined(late, 10), late.joined(early, 10)):
        assert joined == DayAnswer(CLOSE + 9, False, "3-4")


@given(one=ANSWERS, other=ANSWERS)
def test_joining_loses_no_bar_and_no_time_and_invents_none(one: DayAnswer, other: DayAnswer) -> None:
    joined = one.joined(other, 10)
    assert held(joined.missing) == held(one.missing) | held(other.missing)
    assert joined.asked_ts == max(one.asked_ts, other.asked_ts)
    assert joined.joined(one, 10).missing == joined.missing


def test_parts_join_by_ticker() -> None:
    parts = [{"A": DayAnswer(1, True, "0-4"), "B": DayAnswer(1, True, "")}, {"A": DayAnswer(2, True, "5-9")}]
    assert join_parts(parts, 10) == {"A": DayAnswer(2, True, ""), "B": DayAnswer(1, True, "")}
    assert join_parts([], 10) == {}


def test_days_of_a_ticker_join_and_those_without_a_session_count_for_nothing() -> None:
    minutes = {FIRST.day: 10, SECOND.day: 10}
    early = {FIRST.day: DayAnswer(1, True, "0-4"), THIRD.day: DayAnswer(1, True, "")}
    late = {FIRST.day: DayAnswer(2, False, "5-9"), SECOND.day: DayAnswer(2, True, "")}
    assert joined_by_day(early, late, minutes) == {
        FIRST.day: DayAnswer(2, False, ""),
        SECOND.day: DayAnswer(2, True, ""),
    }
    assert joined_by_day(late, late | early, {THIRD.day: 5}) == {THIRD.day: DayAnswer(1, True, "")}
    assert (len(early), len(late)) == (2, 2)


# --- stored --------------------------------------------------------------------------------------


def test_a_part_is_read_as_it_was_put() -> None:
    market, part = bucket(), {"B": DayAnswer(7, False, "0-3,9"), "A": DayAnswer(8, True, "")}
    market.put("answers/dt=2025-12-01/r-s.json", part_body(part))
    assert read_part(market, "answers/dt=2025-12-01/r-s.json") == part


def test_the_order_of_tickers_makes_no_other_part() -> None:
    one, other = DayAnswer(7, False, "0-3,9"), DayAnswer(8, True, "")
    assert part_body({"B": one, "A": other}) == part_body({"A": other, "B": one}) != part_body({"A": one, "B": other})


def test_a_part_that_is_gone_says_nothing() -> None:
    assert read_part(bucket(), "answers/dt=2025-12-01/r-s.json") == {}


def store(market: Bucket, part: str, answers: Mapping[str, DayAnswer], day: int = 0, *, bars: bool = True) -> None:
    market.put(contract.answers_key(SESSIONS[day].day, part), part_body(answers))
    if bars:
        put_table(market, contract.bars_key(SESSIONS[day].day, part), empty_bars())


def test_answers_are_found_by_ticker_and_day_joined_over_all_parts() -> None:
    market = bucket()
    store(market, "a-s", {"A": DayAnswer(1, True, "0-4"), "B": DayAnswer(1, True, "")})
    store(market, "b-s", {"A": DayAnswer(2, True, "5-9")})
    store(market, "a-s", {"A": DayAnswer(3, False, "0-4")}, day=2)
    assert read_answers(market, SESSIONS, ["A", "B", "C"]) == {
        "A": {FIRST.day: DayAnswer(2, True, ""), THIRD.day: DayAnswer(3, False, "0-4")},
        "B": {FIRST.day: DayAnswer(1, True, "")},
    }


def test_nothing_is_said_of_tickers_and_days_that_are_not_wanted() -> None:
    market = bucket()
    for day in range(3):
        store(market, "a-s", {"A": DayAnswer(day, True, ""), "B": DayAnswer(day, True, "")}, day)
    assert read_answers(market, [SECOND], ["A"]) == {"A": {SECOND.day: DayAnswer(1, True, "")}}
    assert read_answers(market, [FIRST, THIRD], ["B"]).keys() == {"B"}


def test_an_empty_market_has_no_answers() -> None:
    assert read_answers(bucket(), SESSIONS, ["A"]) == {}


def test_an_answer_whose_bars_are_gone_counts_for_nothing() -> None:
    market = bucket()
    store(market, "a-s", {"A": DayAnswer(1, True, "")}, bars=False)
    assert read_answers(market, SESSIONS, ["A"]) == {}


def test_bars_of_another_part_or_day_do_not_stand_in_for_those_that_are_gone() -> None:
    market = bucket()
    store(market, "a-s", {"A": DayAnswer(1, True, "")}, bars=False)
    put_table(market, contract.bars_key(FIRST.day, "b-s"), empty_bars())
    put_table(market, contract.bars_key(SECOND.day, "a-s"), empty_bars())
    assert read_answers(market, SESSIONS, ["A"]) == {}


def test_an_answer_without_any_bar_needs_none() -> None:
    market, nothing = bucket(), DayAnswer(1, True, NOTHING)
    store(market, "a-s", {"A": nothing, "B": DayAnswer(1, True, "0-8")}, bars=False)
    assert read_answers(market, SESSIONS, ["A", "B"]) == {"A": {FIRST.day: nothing}}


def test_a_part_that_is_merged_while_it_is_looked_for_is_asked_for_again_at_worst(
    s3: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = Bucket("market")
    store(market, "a-s", {"A": DayAnswer(1, True, "")})
    market.put(contract.answers_key(FIRST.day, "b-s"), part_body({}))
    read = s3.get_object

    def get_after_another_has_merged(**call: str) -> object:
        s3.objects.pop(contract.answers_key(FIRST.day, "a-s"), None)
        return read(**call)

    monkeypatch.setattr(s3, "get_object", get_after_another_has_merged)
    assert read_answers(market, SESSIONS, ["A"]) == {}

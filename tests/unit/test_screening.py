"""The checks at the door: a row is a bar, or it is left out and counted, and a doubtful answer is asked for again."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.ingest.bars import bar_starts, bars_of
from app.ingest.chart import RawBars
from app.ingest.screening import Screened, due_minutes, screen
from app.sessions import market_day, sessions_between, utc
from tests.charts import Row, bars_among, good_rows, raw_of, rows_of
from tests.fakes import make_sessions

(SESSION,) = make_sessions(30)
TWO = make_sessions(20, 14)
SHARE = 0.9
PRICES = ("open", "high", "low", "close")
GOOD = good_rows(SESSION)
AFTER = SESSION.close_ts + 3600.0


def at(minute: float) -> int:
    return SESSION.open_ts + round(60 * minute)


def screened(rows: Sequence[Row], now_ts: float = AFTER, share: float = SHARE) -> Screened:
    return screen(raw_of(rows), (SESSION,), now_ts, share)


def with_rows(changed: Mapping[int, Any]) -> list[Row]:
    """The good rows, with changes in some minutes: a row's new values by name."""
    return [row._replace(**changed.get(minute, {})) for minute, row in enumerate(GOOD)]


def all_prices(price: float) -> dict[str, float]:
    return {"open": price, "high": price, "low": price, "close": price}


def minutes_lost(answer: Screened) -> list[int]:
    return [minute for minute in range(SESSION.minutes) if at(minute) not in answer.bars.ts.tolist()]


def test_a_good_answer_is_taken_whole_and_believed() -> None:
    answer = screened(GOOD)
    assert rows_of(answer.bars) == GOOD
    assert (answer.faults, answer.doubtful) == (Counter(), False)
    assert {column.dtype.name for column in (answer.bars.ts, answer.bars.volume)} == {"int64"}


# --- rows that are bars of nobody -----------------------------------------------------------------


def test_rows_outside_the_sessions_and_off_the_minute_are_left_out_without_a_word() -> None:
    hours_around = [GOOD[0]._replace(ts=at(minute)) for minute in (-300, -1, 30, 200)]
    running = GOOD[7]._replace(ts=at(7) + 31)
    answer = screened([*hours_around[:2], *GOOD, *hours_around[2:], running])
    assert rows_of(answer.bars) == GOOD
    assert (answer.faults, answer.doubtful) == (Counter(), False)


def test_rows_between_two_sessions_belong_to_neither() -> None:
    rows = good_rows(*TWO)
    between = rows[0]._replace(ts=TWO[0].close_ts)
    assert rows_of(screen(raw_of([*rows, between]), TWO, AFTER + 86_400, SHARE).bars) == rows


@pytest.mark.parametrize("column", PRICES)
def test_a_minute_without_one_of_its_prices_is_no_bar(column: str) -> None:
    # Volume was traded, Yahoo says, at no price: stored, it would break the dataset for good.
    answer = screened(with_rows({4: {column: None}}))
    assert minutes_lost(answer) == [4]
    assert (answer.faults, answer.doubtful) == (Counter(), False)


def test_a_bar_without_a_volume_has_none() -> None:
    answer = screened(with_rows({4: {"volume": None}}))
    assert answer.bars.volume[4] == 0
    assert (answer.faults, answer.doubtful) == (Counter(), False)


# --- faults of a row ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "changed"),
    [
        *(("not positive", {name: wrong}) for name in PRICES for wrong in (0.0, -5.0, math.inf)),
        ("not positive", {"low": -math.inf}),
        ("inconsistent", {"high": 60.0}),
        ("inconsistent", {"low": 120.0}),
        ("inconsistent", {"open": GOOD[4].high, "high": GOOD[4].close, "close": GOOD[4].low}),
        ("volume", {"volume": -1.0}),
        ("volume", {"volume": 100.5}),
        ("volume", {"volume": 2.0**54}),
        ("volume", {"volume": math.inf}),
        ("volume", {"volume": -math.inf}),
        ("absurd", all_prices(151.0)),
        ("absurd", all_prices(66.0)),
        ("absurd", {"high": 155.0}),
        ("absurd", {"low": 65.0}),
        ("absurd", all_prices(1e308)),
        ("absurd", all_prices(5e-324)),
        ("absurd", {"high": 1.7e308}),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_a_bar_is_left_out_and_asked_for_again(fault: str, changed: dict[str, float]) -> None:
    answer = screened(with_rows({4: changed}))
    assert rows_of(answer.bars) == [*GOOD[:4], *GOOD[5:]]
    assert answer.faults == Counter({fault: 1})
    assert answer.doubtful


def test_one_rounding_over_the_high_or_under_the_low_is_yahoos_float32() -> None:
    high, low = float(np.float32(101.03)), float(np.float32(98.01))
    assert high < 101.03
    assert low > 98.01
    row = {"open": 98.01, "high": high, "low": low, "close": 101.03}
    assert minutes_lost(screened(with_rows({4: row}))) == []
    assert minutes_lost(screened(with_rows({4: {**row, "close": 101.0302}}))) == [4]


def test_the_largest_number_of_shares_that_a_float_can_tell_is_a_volume() -> None:
    assert screened(with_rows({4: {"volume": 2.0**53}})).bars.volume[4] == 2**53


# --- rows of one minute, and their order ----------------------------------------------------------


def test_rows_in_another_order_are_put_right() -> None:
    answer = screened([*GOOD[10:], *reversed(GOOD[:10])])
    assert rows_of(answer.bars) == GOOD
    assert (answer.faults, answer.doubtful) == (Counter({"unordered": 10}), False)


def test_a_row_that_comes_again_is_one_bar() -> None:
    without_volume = GOOD[6]._replace(volume=None)
    rows = [*GOOD[:6], without_volume, without_volume, *GOOD[7:], GOOD[2], GOOD[2]]
    answer = screened(rows)
    assert rows_of(answer.bars) == [*GOOD[:6], without_volume._replace(volume=0.0), *GOOD[7:]]
    assert (answer.faults, answer.doubtful) == (Counter({"repeated": 3, "unordered": 1}), False)


@pytest.mark.parametrize("changed", [{"volume": 3.0}, {"volume": None}, {"close": 100.0}, {"high": 120.0}])
def test_of_rows_that_contradict_each_other_none_is_a_bar(changed: dict[str, float | None]) -> None:
    other = GOOD[4]._replace(**changed)  # type: ignore[arg-type]
    for rows in ([*GOOD[:5], other, *GOOD[5:]], [*GOOD[:4], other, *GOOD[4:], other]):
        answer = screened(rows)
        assert minutes_lost(answer) == [4]
        assert answer.faults["conflicting"] == len(rows) - len(GOOD) + 1
        assert answer.doubtful


def test_what_cannot_be_a_bar_contradicts_one_all_the_same() -> None:
    answer = screened([*GOOD, GOOD[4]._replace(low=-1.0)])
    assert minutes_lost(answer) == [4]
    assert answer.faults == Counter({"unordered": 1, "conflicting": 2})


def test_a_row_without_prices_does_not_contradict_one_that_has_them() -> None:
    empty = Row(at(4), None, None, None, None, None)
    assert rows_of(screened([*GOOD[:4], empty, *GOOD[4:], empty]).bars) == GOOD


# --- minutes that have not ended ------------------------------------------------------------------


def test_the_minute_that_still_forms_and_those_to_come_are_left_out_of_a_running_session() -> None:
    answer = screened(GOOD[:14], now_ts=at(12) + 20.5)
    assert rows_of(answer.bars) == GOOD[:12]
    assert answer.faults == Counter({"forming": 1, "future": 1})
    assert not answer.doubtful


def test_a_minute_that_begins_now_forms() -> None:
    assert screened(GOOD[:14], now_ts=float(at(12))).faults == Counter({"forming": 1, "future": 1})


def test_a_minute_has_ended_when_the_next_one_begins() -> None:
    assert len(screened(GOOD, now_ts=float(at(12))).bars) == 12
    assert len(screened(GOOD, now_ts=at(12) - 0.001).bars) == 11
    assert len(screened(GOOD, now_ts=float(SESSION.close_ts)).bars) == 30


def test_the_minutes_that_are_due_are_those_that_have_ended() -> None:
    moments = (at(-600), at(0), at(0) + 59.9, at(1), at(29), at(30), at(5000))
    assert [due_minutes(SESSION, moment) for moment in moments] == [0, 0, 0, 1, 29, 30, 30]


# --- absurd prices --------------------------------------------------------------------------------


def test_a_price_that_stays_where_it_jumped_to_is_news() -> None:
    rows = [row if minute < 15 else scaled(row, 2.0) for minute, row in enumerate(GOOD)]
    assert rows_of(screened(rows).bars) == rows


def test_so_is_one_that_gets_there_within_a_minute() -> None:
    through = GOOD[15]._replace(high=201.0, close=200.0)
    for factor in (2.0, 0.5):
        first, last = through.open, 100.0 * factor
        assert first is not None
        row = through._replace(high=max(first, last) + 1, low=min(first, last) - 1, close=last)
        rows = [*GOOD[:15], row, *(scaled(row, factor) for row in GOOD[16:])]
        assert minutes_lost(screened(rows)) == []


def test_a_price_between_what_was_before_and_what_comes_is_news_in_two_steps() -> None:
    rows = [scaled(row, 1.0 if minute < 15 else 1.6 if minute == 15 else 2.56) for minute, row in enumerate(GOOD)]
    assert minutes_lost(screened(rows)) == []


def test_a_wick_upon_a_step_is_absurd_though_neither_is_alone() -> None:
    rows = with_rows({15: {"open": 140.0, "low": 140.0, "close": 140.0, "high": 190.0}})
    assert minutes_lost(screened(rows)) == [15]
    assert minutes_lost(screened(with_rows({15: {"open": 140.0, "low": 140.0, "close": 140.0, "high": 140.0}}))) == []


def test_prices_as_large_as_a_number_can_be_are_judged_as_any() -> None:
    largest = all_prices(sys.float_info.max)
    assert minutes_lost(screened(with_rows({15: largest}))) == [15]
    assert minutes_lost(screened(with_rows(dict.fromkeys(range(30), largest)))) == []
    assert minutes_lost(screened(with_rows(dict.fromkeys(range(3), largest)))) == [0, 1, 2]


@pytest.mark.parametrize("minutes", [1, 2, 3, 4, 5])
def test_absurd_prices_in_a_row_do_not_hide_behind_each_other(minutes: int) -> None:
    for price in (300.0, 30.0):
        spike = dict.fromkeys(range(15, 15 + minutes), all_prices(price))
        assert minutes_lost(screened(with_rows(spike))) == [*spike]


def test_a_price_that_stays_for_six_minutes_is_news_that_did_not_last() -> None:
    assert minutes_lost(screened(with_rows(dict.fromkeys(range(15, 21), all_prices(300.0))))) == []


@pytest.mark.parametrize("first", [0, 27])
def test_three_absurd_minutes_at_either_end_of_a_day_are_left_out_together(first: int) -> None:
    spike = dict.fromkeys(range(first, first + 3), all_prices(300.0))
    assert minutes_lost(screened(with_rows(spike))) == [*spike]


def test_a_week_of_prices_that_grow_without_end_is_screened_at_once() -> None:
    week = make_sessions(390, 390, 390, 390, 390)
    rows = [
        Row(session.open_ts + 60 * minute, price, price, price, price, 1.0)
        for session in week
        for minute, price in enumerate(1e-90 * 1.6**minute for minute in range(390))
    ]
    begun_s = time.process_time()
    screen(raw_of(rows), week, AFTER + 7 * 86_400, SHARE)
    assert time.process_time() - begun_s < 5


def test_what_an_absurd_price_is_compared_with_is_of_its_own_session() -> None:
    # Over night a price may double; the first minute and the last one of a day have neighbours on one side.
    rows = [row if row.ts < TWO[1].open_ts else scaled(row, 2.0) for row in good_rows(*TWO)]
    answer = screen(raw_of(rows), TWO, AFTER + 86_400, SHARE)
    assert rows_of(answer.bars) == rows
    assert minutes_lost(screened(with_rows({0: all_prices(300.0), 29: all_prices(20.0)}))) == [0, 29]


def test_a_bar_that_is_alone_in_its_session_is_compared_with_nothing() -> None:
    assert rows_of(screened([GOOD[3]]).bars) == [GOOD[3]]


def scaled(row: Row, factor: float) -> Row:
    prices = {name: round(getattr(row, name) * factor, 4) for name in PRICES}
    return row._replace(**prices)


# --- runs without volume --------------------------------------------------------------------------


def carried(first: int, end: int) -> dict[int, dict[str, float]]:
    """Minutes without volume, at the close before them."""
    close = GOOD[first - 1].close if first else GOOD[0].open
    assert close is not None
    return {minute: {**all_prices(close), "volume": 0.0} for minute in range(first, end)}


def test_ten_minutes_at_the_price_before_and_without_volume_were_not_traded() -> None:
    answer = screened(with_rows(carried(10, 20)), share=0.1)
    assert minutes_lost(answer) == list(range(10, 20))
    assert (answer.faults, answer.doubtful) == (Counter({"stale": 10}), True)


def test_nine_of_them_may_have_been() -> None:
    answer = screened(with_rows(carried(10, 19)))
    assert minutes_lost(answer) == []
    assert (answer.faults, answer.doubtful) == (Counter(), False)


def test_an_absurd_price_among_them_hides_none() -> None:
    minutes = {**carried(8, 26), 17: all_prices(300.0)}
    assert minutes_lost(screened(with_rows(minutes))) == list(range(8, 26))


def test_a_session_may_begin_with_a_price_carried_forward() -> None:
    assert minutes_lost(screened(with_rows(carried(0, 12)))) == list(range(12))
    rows = good_rows(*TWO)
    close = rows[TWO[0].minutes - 1].close
    assert close is not None
    silent = all_prices(close)
    rows[20:31] = [row._replace(volume=0.0, **silent) for row in rows[20:31]]  # type: ignore[arg-type]
    answer = screen(raw_of(rows), TWO, AFTER + 86_400, SHARE)
    assert rows_of(answer.bars) == [*rows[:20], *rows[31:]]


def test_a_run_does_not_go_on_over_night() -> None:
    rows = good_rows(*TWO)
    close = rows[13].close
    assert close is not None
    rows[14:26] = [row._replace(volume=0.0, **all_prices(close)) for row in rows[14:26]]  # type: ignore[arg-type]
    assert rows_of(screen(raw_of(rows), TWO, AFTER + 86_400, SHARE).bars) == rows


def test_prices_that_move_without_volume_are_kept_and_counted() -> None:
    # An index has no volume at all.
    answer = screened([row._replace(volume=0.0) for row in GOOD])
    assert [row[:5] for row in rows_of(answer.bars)] == [row[:5] for row in GOOD]
    assert (answer.faults, answer.doubtful) == (Counter({"no volume": 30}), False)


def test_within_a_run_without_volume_only_what_stands_still_for_long_is_stale() -> None:
    rows = with_rows(carried(12, 23))
    rows[5:12] = [row._replace(volume=0.0) for row in rows[5:12]]
    rows[23:28] = [row._replace(volume=0.0) for row in rows[23:28]]
    answer = screened(rows)
    assert minutes_lost(answer) == list(range(12, 23))
    assert answer.faults == Counter({"stale": 11, "no volume": 12})


# --- answers that may have been cut off -----------------------------------------------------------


def test_100_of_390_bars_with_status_200_are_asked_for_again() -> None:
    (day,) = make_sessions(390)
    answer = screen(raw_of(good_rows(day)[:100]), (day,), day.close_ts, SHARE)
    assert len(answer.bars) == 100
    assert answer.doubtful


@pytest.mark.parametrize(("missing", "doubtful"), [(0, False), (9, False), (10, True)])
def test_an_answer_that_ends_ten_minutes_early_may_have_been_cut_off(missing: int, doubtful: bool) -> None:
    (day,) = make_sessions(390)
    rows = good_rows(day)[: 390 - missing]
    for now_ts in (day.close_ts, day.close_ts + 59, day.close_ts + 86_400):
        assert screen(raw_of(rows), (day,), now_ts, SHARE).doubtful == doubtful


def test_a_running_session_is_judged_by_the_minutes_that_are_due() -> None:
    now_ts = at(20) + 5.0
    assert not screened(GOOD[:20], now_ts).doubtful
    assert not screened(GOOD[:18], now_ts).doubtful
    assert screened(GOOD[:17], now_ts).doubtful
    assert screened(GOOD[:10], now_ts, share=0.1).doubtful


def test_a_session_that_lacks_more_than_it_may_is_doubtful_wherever_it_stands() -> None:
    rows = good_rows(*TWO)
    now_ts = AFTER + 86_400
    assert not screen(raw_of(rows[2:]), TWO, now_ts, SHARE).doubtful
    assert screen(raw_of(rows[3:]), TWO, now_ts, SHARE).doubtful
    assert screen(raw_of(rows[1:]), TWO, now_ts, 1.0).doubtful


def test_an_answer_without_bars_is_doubtful_once_one_is_due() -> None:
    assert screened([]).doubtful
    assert not screened([], now_ts=at(0) + 59).doubtful
    assert not screened([], now_ts=at(-60)).doubtful


def test_no_bar_is_missed_before_a_session_opens() -> None:
    rows = good_rows(TWO[0])
    assert not screen(raw_of(rows), TWO, TWO[1].open_ts - 3600.0, SHARE).doubtful


# --- any answer -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """Rows of TWO's sessions, and when they were got."""

    rows: tuple[Row, ...]
    now_ts: float


WRONG_PRICES = st.sampled_from([None, 0.0, -1.0, math.inf, 5e-324, 1.7e308, 100.0, 140.0, 151.0, 60.0])
VOLUMES = st.sampled_from([0.0, 0.0, 0.0, 0.0, 7.0, 900.0, None])
WRONG_VOLUMES = st.sampled_from([None, -1.0, 0.5, 2.0**53, 2.0**54, math.inf, -math.inf])
STEPS = st.sampled_from([1.0, 1.0, 1.0, 1.001, 0.999, 1.3, 1 / 1.3, 1.45, 1 / 1.45, 1.6, 1 / 1.6])
WICKS = st.sampled_from([1.0, 1.0, 1.0, 1.001, 1.2, 1.49, 1.7])


@st.composite
def usual_row(draw: st.DrawFn, ts: int, before: float) -> Row:
    """A consistent row that begins near the close before it; most often nothing happens at all."""
    last = before * draw(STEPS)
    return Row(ts, before, max(before, last) * draw(WICKS), min(before, last) / draw(WICKS), last, draw(VOLUMES))


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """Rows of each kind that an answer may have, or lack."""
    rows: list[Row] = []
    price = 100.0
    for session in TWO:
        for minute in range(-1, session.minutes + 1):
            row = draw(usual_row(session.open_ts + 60 * minute, price))
            match draw(st.sampled_from(["bar"] * 40 + ["wrong", "volume", "gone", "off", "again", "differs"])):
                case "wrong":
                    row = row._replace(**{name: draw(WRONG_PRICES) for name in PRICES})  # type: ignore[arg-type]
                case "volume":
                    row = row._replace(volume=draw(WRONG_VOLUMES))
                case "off":
                    row = row._replace(ts=row.ts + draw(st.integers(1, 59)))
                case "again":
                    rows.append(row)
                case "differs":
                    rows.append(row._replace(volume=draw(WRONG_VOLUMES)))
                case "gone":
                    continue
            rows.append(row)
            price = row.close if row.close and 1 < row.close < 1000 else price
    if draw(st.booleans()):
        for _ in range(draw(st.integers(1, 3))):
            rows.insert(draw(st.integers(0, len(rows))), rows.pop(draw(st.integers(0, len(rows) - 1))))
    now_ts = TWO[draw(st.integers(0, 1))].close_ts + draw(st.sampled_from([0.0, 3600.0, -0.5, -60.0, -330.25]))
    return Answer(tuple(rows), now_ts)


def assert_screened_by_the_rules(answer: Answer) -> None:
    found = screen(raw_of(answer.rows), TWO, answer.now_ts, SHARE)
    assert rows_of(found.bars) == bars_among(answer.rows, TWO, answer.now_ts)
    assert_nothing_vanished(answer, found)


def assert_nothing_vanished(answer: Answer, found: Screened) -> None:
    """A row is a bar, or is counted, or is of those that nobody needs to hear of."""
    silent = {"unordered", "no volume"}
    counted = sum(count for fault, count in found.faults.items() if fault not in silent)
    of_somebody = [
        row
        for row in answer.rows
        if row.ts % 60 == 0
        and any(session.open_ts <= row.ts < session.close_ts for session in TWO)
        and (None not in row[1:5] or row.ts + 60 > answer.now_ts)
    ]
    assert len(found.bars) + counted == len(of_somebody)
    lost = found.faults.keys() - {"unordered", "repeated", "forming", "future", "no volume"}
    assert found.doubtful or not lost


@settings(derandomize=True)
@given(answers())
def test_the_bars_of_any_answer_are_the_rows_that_keep_the_rules(answer: Answer) -> None:
    assert_screened_by_the_rules(answer)


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@settings(max_examples=10_000)
@given(answers())
def test_the_bars_of_very_many_answers_are_the_rows_that_keep_the_rules(answer: Answer) -> None:
    assert_screened_by_the_rules(answer)


def test_screening_leaves_the_answer_as_it_was() -> None:
    raw = raw_of([*GOOD[20:], *GOOD[:20], *GOOD[:3]])
    kept = RawBars(*(np.array(getattr(raw, name)) for name in ("ts", "open", "high", "low", "close", "volume")))
    screen(raw, (SESSION,), AFTER, SHARE)
    for name in ("ts", "open", "high", "low", "close", "volume"):
        assert np.array_equal(getattr(raw, name), getattr(kept, name))


# --- real bars ------------------------------------------------------------------------------------


def test_every_real_bar_passes(real_bars: pa.Table) -> None:
    bars = bars_of(real_bars)
    instants = bar_starts(real_bars)
    sessions = sessions_between(market_day(utc(int(instants.min()))), market_day(utc(int(instants.max()))))
    for ticker, one in bars.items():
        found = screen(raw_of(rows_of(one)), sessions, sessions[-1].close_ts, SHARE)
        assert found.bars.same_as(one), ticker
        assert found.faults == Counter(), ticker

"""Bars as arrays: parts of them, whether two are the same, and which copy of a bar is the latest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.ingest.ticker_bars import NO_BARS, TickerBars, latest

COLUMNS = ("open", "high", "low", "close", "volume")


def bars(*ts: int, close: float = 10.0, volume: int = 5) -> TickerBars:
    """Bars that start at these seconds, all alike."""
    first, high, low, last = (np.full(len(ts), price) for price in (9.5, close + 1, 9.0, close))
    return TickerBars(np.array(ts, np.int64), first, high, low, last, np.full(len(ts), volume, np.int64))


def test_the_length_is_the_number_of_bars() -> None:
    assert [len(NO_BARS), len(bars(60)), len(bars(60, 120, 300))] == [0, 1, 3]


def test_no_bars_have_the_types_of_bars() -> None:
    names = ("ts", *COLUMNS)
    assert [getattr(NO_BARS, name).dtype for name in names] == [getattr(bars(60), name).dtype for name in names]


def test_prices_are_open_high_low_and_close() -> None:
    assert [column.tolist() for column in bars(60).prices] == [[9.5], [11.0], [9.0], [10.0]]


def test_bars_between_two_instants_start_at_the_first_and_before_the_second() -> None:
    some = bars(60, 120, 180, 300)
    assert some.between(60, 180).ts.tolist() == [60, 120]
    assert some.between(61, 301).ts.tolist() == [120, 180, 300]
    assert some.between(0, 1000).same_as(some)
    for start_s, end_s in ((120, 120), (180, 60), (181, 300), (400, 500), (0, 60)):
        assert len(some.between(start_s, end_s)) == 0
    assert len(NO_BARS.between(0, 100)) == 0


def test_bars_between_two_instants_are_no_copy() -> None:
    some = bars(60, 120, 180)
    assert np.shares_memory(some.between(60, 180).close, some.close)


def test_a_part_is_picked_by_slice_mask_or_index_in_every_column() -> None:
    at, price = np.arange(4, dtype=np.int64), np.arange(4, dtype=np.float64)
    some = TickerBars(at * 60, price, 2 * price, 3 * price, 4 * price, at * 5)
    for rows in (slice(1, 4, 2), np.array([False, True, False, True]), np.array([1, 3])):
        part = some.part(rows)
        columns = [part.ts, part.open, part.high, part.low, part.close, part.volume]
        assert [column.tolist() for column in columns] == [[60, 180], [1, 3], [2, 6], [3, 9], [4, 12], [5, 15]]


def test_the_same_bars_are_the_same_and_no_bars_are_no_bars() -> None:
    assert bars(60, 120).same_as(bars(60, 120))
    assert NO_BARS.same_as(bars())
    assert not NO_BARS.same_as(bars(60))
    assert not bars(60, 120).same_as(bars(60))
    assert not bars(60).same_as(bars(120))


@pytest.mark.parametrize("name", COLUMNS)
def test_bars_that_differ_in_one_bit_are_not_the_same(name: str) -> None:
    some = bars(60, 120)
    column = getattr(some, name).copy()
    column[1] = np.nextafter(column[1], np.inf) if name != "volume" else column[1] + 1
    assert not some.same_as(replace(some, **{name: column}))


def test_of_two_copies_of_a_bar_the_last_parts_is_kept() -> None:
    kept = latest([bars(60, 120, 180, close=1.0), bars(120, 240, close=2.0), NO_BARS, bars(240, close=3.0)])
    assert kept.ts.tolist() == [60, 120, 180, 240]
    assert kept.close.tolist() == [1.0, 2.0, 1.0, 3.0]


def test_the_latest_of_nothing_is_nothing_and_of_one_part_the_part() -> None:
    one = bars(60)
    assert latest([]) is latest([NO_BARS]) is NO_BARS
    assert latest([NO_BARS, one, NO_BARS]) is one


def test_bars_out_of_order_are_put_in_order_and_of_one_part_too_the_last_copy_is_kept() -> None:
    disordered = bars(60, 120, 180).part(np.array([2, 0, 1, 0]))
    disordered.volume[:] = [1, 2, 3, 4]
    kept = latest([disordered])
    assert (kept.ts.tolist(), kept.volume.tolist()) == ([60, 120, 180], [4, 3, 1])


PARTS = st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=5)


@settings(derandomize=True)
@given(PARTS)
def test_the_latest_copies_are_those_that_a_dictionary_would_keep(parts: list[list[int]]) -> None:
    written = [bars(*(60 * minute for minute in part), close=i) for i, part in enumerate(parts)]
    for part in written:
        part.volume[:] = np.arange(len(part))
    expected = {60 * minute: (i, at) for i, part in enumerate(parts) for at, minute in enumerate(part)}
    kept = latest(written)
    assert kept.ts.tolist() == sorted(expected)
    assert [*zip(kept.close.tolist(), kept.volume.tolist(), strict=True)] == [expected[ts] for ts in sorted(expected)]
    assert kept.high.tolist() == [close + 1 for close in kept.close.tolist()]

"""Features of one minute, by hand; and nothing later than the minute itself enters them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import contract
from app.dataset.features import FILLED_ROW, minute_features, scale
from app.dataset.grid import make_grid
from tests.fakes import make_sessions

(SESSION,) = make_sessions(12)


def array(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(values, np.float64)


def test_a_row_is_the_log_return_and_the_log_of_one_more_than_the_volume() -> None:
    rows = minute_features(array(101, 100), array(100, 101), array(99, 0))
    assert rows.dtype == np.float32
    assert contract.FEATURES == ("log_return", "log_volume")
    assert rows[:, 0].tolist() == pytest.approx([math.log(1.01), -math.log(1.01)], rel=1e-6)
    assert rows[:, 1].tolist() == pytest.approx([math.log(100), 0])


def test_a_volume_that_is_not_trusted_stays_nan_and_the_return_does_not() -> None:
    rows = minute_features(array(math.e), array(1), array(math.nan))
    assert rows[0, 0] == pytest.approx(1)
    assert math.isnan(rows[0, 1])


def test_the_row_of_a_minute_without_trades_is_that_of_an_unchanged_price_and_no_volume() -> None:
    assert np.array_equal(minute_features(array(50), array(50), array(0))[0], FILLED_ROW)


def test_scaling_subtracts_the_mean_divides_by_the_std_and_takes_nan_as_the_mean() -> None:
    rows = np.array([[[3, 10], [1, math.nan]]], np.float32)  # (windows, minutes, features)
    mean, std = np.array([[1, 4]], np.float32), np.array([[2, 3]], np.float32)
    scaled = scale(rows, mean[:, None, :], std[:, None, :])
    assert scaled.tolist() == [[[1, 2], [0, 0]]]
    assert scaled.dtype == np.float32
    assert math.isnan(rows[0, 1, 1])  # what was given is left alone


PRICES = st.floats(1, 1000)
BAR = st.tuples(PRICES, PRICES, st.integers(0, 10**9))  # open, close, volume


@given(
    minutes=st.lists(st.integers(0, 11), min_size=1, unique=True).map(sorted),
    bars=st.lists(BAR, min_size=12, max_size=12),
    later=BAR,
    data=st.data(),
)
def test_a_later_bar_changes_no_earlier_row(
    minutes: list[int], bars: list[tuple[float, float, int]], later: tuple[float, float, int], data: st.DataObject
) -> None:
    changed = data.draw(st.integers(0, len(minutes) - 1))
    ts = np.array([SESSION.open_ts + 60 * minute for minute in minutes], np.int64)
    before, after = (
        make_grid("X", SESSION, ts, *(np.array(column, np.float64) for column in zip(*chosen, strict=True)))
        for chosen in (bars[: len(ts)], [*bars[:changed], later, *bars[changed + 1 :]][: len(ts)])
    )
    first = 0 if changed == 0 else minutes[changed]  # the first bar's open stands for the minutes before it
    assert np.array_equal(before.features[: minutes[changed]], after.features[: minutes[changed]])
    assert np.array_equal(before.close[:first], after.close[:first])

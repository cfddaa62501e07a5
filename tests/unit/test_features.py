"""Features of one minute, by hand; and nothing later than the minute itself enters them."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import contract
from app.dataset.features import FloatArray, Minute, market_returns, minute_features, scale
from app.dataset.grid import Bars, make_grid
from tests.fakes import make_sessions

(SESSION,) = make_sessions(12)
PROFILE = np.linspace(-1, 1, contract.SESSION_MINUTES)
ONE = Minute(
    open=np.array([100.0, 50.0]),
    high=np.array([104.0, 51.0]),
    low=np.array([99.0, 48.0]),
    close=np.array([103.0, 49.0]),
    previous_close=np.array([101.0, 50.0]),
    session_open=np.array([90.0, 50.0]),
    volume=np.array([99.0, 0.0]),
    number=np.array([7, 0]),
    market_return=np.array([0.001, -0.002]),
)


def array(*values: float) -> FloatArray:
    return np.array(values, np.float64)


def made(name: str, minute: Minute = ONE) -> list[float]:
    rows = minute_features((name,), minute, PROFILE)
    assert rows.dtype == np.float32
    assert rows.shape == (len(minute.close), 1)
    values: list[float] = rows[:, 0].tolist()
    return values


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("log_return", [math.log(103 / 101), math.log(49 / 50)]),
        ("log_volume", [math.log(100), 0]),
        ("session_return", [math.log(103 / 90), math.log(49 / 50)]),
        ("log_range", [math.log(104 / 99), math.log(51 / 48)]),
        ("relative_volume", [math.log(100) - PROFILE[7], -PROFILE[0]]),
        ("market_return", [0.001, -0.002]),
        ("session_minute", [7, 0]),
    ],
)
def test_each_feature_is_what_its_name_says(name: str, expected: list[float]) -> None:
    assert name in contract.FEATURES
    assert made(name) == pytest.approx(expected, rel=1e-6)


def test_a_model_may_take_some_features_in_any_order() -> None:
    names = ("session_minute", "log_return")
    rows = minute_features(names, ONE, PROFILE)
    assert rows.shape == (2, 2)
    assert [column.tolist() for column in rows.T] == [made(name) for name in names]
    assert contract.DEFAULT_FEATURES == ("log_return", "log_volume")


def test_a_volume_that_is_not_trusted_is_nan_and_nothing_else_is() -> None:
    rows = minute_features(contract.FEATURES, replace(ONE, volume=array(math.nan, math.nan)), PROFILE)
    unknown = [name for name, column in zip(contract.FEATURES, rows.T, strict=True) if np.isnan(column).any()]
    assert unknown == ["log_volume", "relative_volume"]


def test_in_a_minute_without_trades_the_price_stands_still_and_the_market_is_not_known() -> None:
    still = Minute.without_trade(array(103), array(90), np.array([7]))
    row = dict(zip(contract.FEATURES, minute_features(contract.FEATURES, still, PROFILE)[0].tolist(), strict=True))
    moved = {"session_return": math.log(103 / 90), "relative_volume": -PROFILE[7], "session_minute": 7}
    assert row == pytest.approx(dict.fromkeys(contract.FEATURES, 0.0) | moved, rel=1e-6)


def test_scaling_subtracts_the_mean_divides_by_the_std_and_takes_nan_as_the_mean() -> None:
    rows = np.array([[[3, 10], [1, math.nan]]], np.float32)  # (windows, minutes, features)
    mean, std = np.array([[1, 4]], np.float32), np.array([[2, 3]], np.float32)
    scaled = scale(rows, mean[:, None, :], std[:, None, :])
    assert scaled.tolist() == [[[1, 2], [0, 0]]]
    assert scaled.dtype == np.float32
    assert math.isnan(rows[0, 1, 1])  # what was given is left alone


# --- the market -----------------------------------------------------------------------------------


def test_the_market_s_return_is_the_mean_over_the_bars_of_a_minute_their_own_included() -> None:
    ts = np.array([60, 120, 60, 180, 120, 60])
    opened, close = np.ones(6), np.exp([0.01, 0.05, 0.02, 0.07, -0.01, 0.06])
    found = market_returns(ts, opened, close)
    assert found.tolist() == pytest.approx([0.03, 0.02, 0.03, 0.07, 0.02, 0.03])


@given(moves=st.lists(st.lists(st.floats(-0.1, 0.1), min_size=1, max_size=6), min_size=1, max_size=6))
def test_the_market_s_return_is_that_of_a_plain_loop(moves: list[list[float]]) -> None:
    ts = np.array([60 * minute for minute, inner in enumerate(moves) for _ in inner])
    flat = np.array([move for inner in moves for move in inner])
    expected = [sum(inner) / len(inner) for minute, inner in enumerate(moves) for _ in inner]
    found = market_returns(ts, np.ones(len(flat)), np.exp(flat))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)


# --- one ticker's session: nothing later enters a row ----------------------------------------------

PRICES = st.floats(1, 1000)
BAR = st.tuples(*[PRICES] * 4, st.integers(0, 10**9).map(float), st.floats(-0.1, 0.1))
"""open, high, low and close in any relation, volume, market's return."""
NAMES = [field.name for field in fields(Bars) if field.name != "ts"]


def bars_of(minutes: list[int], rows: list[tuple[Any, ...]]) -> Bars:
    columns = {name: np.array([row[i] for row in rows], np.float64) for i, name in enumerate(NAMES)}
    return Bars(ts=np.array([SESSION.open_ts + 60 * minute for minute in minutes]), **columns)


@given(
    minutes=st.lists(st.integers(0, 11), min_size=1, unique=True).map(sorted),
    bars=st.lists(BAR, min_size=12, max_size=12),
    later=BAR,
    data=st.data(),
)
def test_a_later_bar_changes_no_earlier_row(
    minutes: list[int], bars: list[tuple[Any, ...]], later: tuple[Any, ...], data: st.DataObject
) -> None:
    changed = data.draw(st.integers(0, len(minutes) - 1))
    held = bars[: len(minutes)]
    before, after = (
        make_grid("X", SESSION, bars_of(minutes, rows), PROFILE)
        for rows in (held, [*held[:changed], later, *held[changed + 1 :]])
    )
    first = 0 if changed == 0 else minutes[changed]  # the first bar's open stands for the minutes before it
    assert np.array_equal(before.features[: minutes[changed]], after.features[: minutes[changed]])
    assert np.array_equal(before.close[:first], after.close[:first])


@given(
    minutes=st.lists(st.integers(0, 11), min_size=2, unique=True).map(sorted),
    bars=st.lists(BAR, min_size=12, max_size=12),
)
def test_bars_that_are_still_to_come_change_no_row_up_to_now(minutes: list[int], bars: list[tuple[Any, ...]]) -> None:
    held = bars[: len(minutes)]
    whole = make_grid("X", SESSION, bars_of(minutes, held), PROFILE)
    so_far = make_grid("X", SESSION, bars_of(minutes[:-1], held[:-1]), PROFILE)
    assert np.array_equal(whole.features[: minutes[-1]], so_far.features[: minutes[-1]])

"""One session of one ticker on all its minutes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from app.contract import FEATURES, SESSION_MINUTES
from app.dataset.grid import Bars, SessionGrid, make_grid
from app.sessions import Session
from tests.fakes import make_sessions

FULL, HALF_DAY = make_sessions(6, 3)
PROFILE = np.linspace(0, 38.9, SESSION_MINUTES)


def grid(bars: Mapping[int, tuple[float, float, float]], session: Session = FULL) -> SessionGrid:
    """bars: open, close and volume by minute; high and low are 1 % beyond both, the market moves by a thousandth."""
    opened, close, volume = np.array(list(bars.values()), np.float64).T
    columns = Bars(
        ts=np.array([session.open_ts + 60 * minute for minute in bars], np.int64),
        open=opened,
        high=1.01 * np.maximum(opened, close),
        low=np.minimum(opened, close) / 1.01,
        close=close,
        volume=volume,
        market_return=np.full(len(bars), 0.001),
    )
    return make_grid("X", session, columns, PROFILE)


def values(found: SessionGrid, name: str) -> list[float]:
    column: list[float] = found.features[:, FEATURES.index(name)].tolist()
    return column


def test_a_missing_minute_keeps_the_price_and_the_next_return_spans_it() -> None:
    found = grid({0: (100, 101, 9), 1: (101, 102, 9), 4: (103, 104, 0), 5: (104, 105, 9)})
    assert found.close.tolist() == [101, 102, 102, 102, 104, 105]
    assert found.observed.tolist() == [True, True, False, False, True, True]
    assert found.filled_minutes == 2
    returns = [math.log(1.01), math.log(102 / 101), 0, 0, math.log(104 / 102), math.log(105 / 104)]
    assert values(found, "log_return") == pytest.approx(returns, rel=1e-6)
    assert values(found, "log_volume") == pytest.approx([math.log(10)] * 2 + [0, 0, 0, math.log(10)])


def test_a_missing_minute_is_further_in_the_session_as_far_as_before_and_of_no_volume_range_or_market() -> None:
    found = grid({0: (100, 101, 9), 1: (101, 102, 9), 4: (103, 104, 0), 5: (104, 105, 9)})
    since_open = [math.log(close / 100) for close in (101, 102, 102, 102, 104, 105)]
    assert values(found, "session_return") == pytest.approx(since_open, rel=1e-6)
    assert values(found, "session_minute") == [0, 1, 2, 3, 4, 5]
    usual = [math.log(10), math.log(10) - 0.1, -0.2, -0.3, -0.4, math.log(10) - 0.5]
    assert values(found, "relative_volume") == pytest.approx(usual, rel=1e-6)
    assert values(found, "market_return") == pytest.approx([0.001, 0.001, 0, 0, 0.001, 0.001])
    ranges = [2 * math.log(1.01) + math.log(p / q) for p, q in ((101, 100), (102, 101), (104, 103), (105, 104))]
    assert values(found, "log_range") == pytest.approx([*ranges[:2], 0, 0, *ranges[2:]], rel=1e-5)


def test_before_a_late_first_bar_its_open_is_the_price() -> None:
    found = grid({2: (100, 110, 1), 3: (110, 121, 1)})
    assert found.close.tolist() == [100, 100, 110, 121, 121, 121]
    moved = {"relative_volume": [0, -0.1], "session_minute": [0, 1]}
    for name in FEATURES:
        assert values(found, name)[:2] == pytest.approx(moved.get(name, [0, 0])), name
    assert values(found, "log_return")[2:4] == pytest.approx([math.log(1.1)] * 2)
    assert values(found, "session_return")[2:] == pytest.approx([math.log(1.1)] + [math.log(1.21)] * 3)
    assert found.filled_minutes == 4


def test_the_first_return_is_from_the_open_so_that_no_night_enters() -> None:
    assert values(grid({0: (200, 202, 1)}), "log_return")[0] == pytest.approx(math.log(1.01), rel=1e-6)


def test_a_half_day_has_its_own_length() -> None:
    found = grid({0: (1, 1, 1), 2: (1, 1, 1)}, HALF_DAY)
    assert (len(found.close), len(found.observed), found.features.shape) == (3, 3, (3, 7))
    assert found.observed.tolist() == [True, False, True]


def test_a_session_with_an_untrusted_volume_knows_it_of_no_minute() -> None:
    found = grid({0: (1, 1, math.nan), 1: (1, 1, math.nan), 5: (1, 1, math.nan)})
    for name in FEATURES:
        known = {True} if name in {"log_volume", "relative_volume"} else {False}
        assert set(np.isnan(values(found, name)).tolist()) == known, name

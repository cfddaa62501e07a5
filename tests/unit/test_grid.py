"""One session of one ticker on all its minutes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from app.dataset.features import FILLED_ROW
from app.dataset.grid import SessionGrid, make_grid
from tests.fakes import make_sessions

FULL, HALF_DAY = make_sessions(6, 3)


def grid(bars: Mapping[int, tuple[float, float, float]], session: object = FULL) -> SessionGrid:
    """bars: open, close and volume by minute."""
    assert isinstance(session, type(FULL))
    columns = np.array(list(bars.values()), np.float64).T
    ts = np.array([session.open_ts + 60 * minute for minute in bars], np.int64)
    return make_grid("X", session, ts, *columns)


def test_a_missing_minute_keeps_the_price_and_the_next_return_spans_it() -> None:
    found = grid({0: (100, 101, 9), 1: (101, 102, 9), 4: (103, 104, 0), 5: (104, 105, 9)})
    assert found.close.tolist() == [101, 102, 102, 102, 104, 105]
    assert found.observed.tolist() == [True, True, False, False, True, True]
    assert found.filled_minutes == 2
    returns = [math.log(1.01), math.log(102 / 101), 0, 0, math.log(104 / 102), math.log(105 / 104)]
    assert found.features[:, 0].tolist() == pytest.approx(returns, rel=1e-6)
    assert found.features[:, 1].tolist() == pytest.approx([math.log(10)] * 2 + [0, 0, 0, math.log(10)])


def test_before_a_late_first_bar_its_open_is_the_price() -> None:
    found = grid({2: (100, 110, 1), 3: (110, 121, 1)})
    assert found.close.tolist() == [100, 100, 110, 121, 121, 121]
    assert np.array_equal(found.features[:2], np.tile(FILLED_ROW, (2, 1)))
    assert found.features[2:4, 0].tolist() == pytest.approx([math.log(1.1)] * 2)
    assert found.filled_minutes == 4


def test_the_first_return_is_from_the_open_so_that_no_night_enters() -> None:
    assert grid({0: (200, 202, 1)}).features[0, 0] == pytest.approx(math.log(1.01), rel=1e-6)


def test_a_half_day_has_its_own_length() -> None:
    found = grid({0: (1, 1, 1), 2: (1, 1, 1)}, HALF_DAY)
    assert (len(found.close), len(found.observed), found.features.shape) == (3, 3, (3, 2))
    assert found.observed.tolist() == [True, False, True]


def test_a_session_with_an_untrusted_volume_knows_it_of_no_minute() -> None:
    found = grid({0: (1, 1, math.nan), 1: (1, 1, math.nan), 5: (1, 1, math.nan)})
    assert np.isnan(found.features[:, 1]).all()
    assert not np.isnan(found.features[:, 0]).any()

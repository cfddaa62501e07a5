"""What is noticed about stored bars: broken ones are refused, faulty volumes found, thin tickers left alone."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from app.dataset.checks import VolumeFault, Volumes, check_bars, empty_days, too_short, volume_faults
from app.errors import BadBars
from tests.fakes import FIRST_DAY, make_sessions, market_bars, with_column

BARS = market_bars(["AAPL", "MSFT"], make_sessions(4))  # rows 0..3 and 4..7, from 14:30 UTC


def with_values(name: str, values: dict[int, Any]) -> pa.Table:
    held = BARS[name].to_pylist()
    return with_column(BARS, name, [values.get(i, value) for i, value in enumerate(held)])


def test_sound_bars_pass() -> None:
    check_bars(BARS)
    check_bars(BARS.slice(0, 0))
    check_bars(with_values("volume", {2: 0}))


@pytest.mark.parametrize(
    ("bars", "message"),
    [
        (with_values("close", {2: math.nan, 5: math.inf}), "2 non-finite prices, first AAPL at 2025-12-01 14:32"),
        (with_values("low", {5: 0.0}), "1 non-positive prices, first MSFT at 2025-12-01 14:31"),
        (with_values("open", {0: -1.0, 7: -1.0}), "2 non-positive prices, first AAPL at 2025-12-01 14:30"),
        (with_values("volume", {6: -5}), "1 negative volumes, first MSFT at 2025-12-01 14:32"),
        (
            with_values("ts", {1: datetime(2025, 12, 1, 14, 31, 7, tzinfo=UTC)}),
            "1 bars off the whole minute, first AAPL at 2025-12-01 14:31",
        ),
        (
            with_values("ts", {1: datetime(2025, 12, 1, 14, 31, 0, 5000, tzinfo=UTC)}),
            "1 bars off the whole minute, first AAPL at 2025-12-01 14:31",
        ),
        (BARS.take([0, 1, 1, 2, 2, 3]), "2 duplicates of (ticker, ts), first AAPL at 2025-12-01 14:31"),
        (BARS.take([0, 2, 1, 3]), "1 bars out of order, first AAPL at 2025-12-01 14:31"),
        (BARS.take([4, 5, 0]), "1 bars out of order, first AAPL at 2025-12-01 14:30"),
    ],
)  # fmt: skip
def test_broken_bars_are_refused_with_their_number_and_the_first(bars: pa.Table, message: str) -> None:
    with pytest.raises(BadBars) as caught:
        check_bars(bars)
    assert message in str(caught.value)
    assert str(caught.value).endswith('or leave it out with dataset.exclude_days=["2025-12-01"]')
    assert "\n" not in str(caught.value)


def test_the_day_to_leave_out_is_new_yorks() -> None:
    late = with_column(BARS.slice(0, 1), "ts", [datetime(2025, 12, 2, 1, 0, tzinfo=UTC)])  # 20:00 EST the day before
    with pytest.raises(BadBars, match=r'at 2025-12-02 01:00 UTC: .*\["2025-12-01"\]'):
        check_bars(with_column(late, "close", [0.0]))


# --- volumes -------------------------------------------------------------------------------------


def volumes(*sessions: tuple[int, int], ticker: str = "X") -> Volumes:
    """Sessions of 100 bars by (number of zero bars, shares in each other bar)."""
    days = [FIRST_DAY + timedelta(days=i) for i in range(len(sessions))]
    arrays = [np.repeat([0, shares], [zeros, 100 - zeros]) for zeros, shares in sessions]
    return {(ticker, day): array for day, array in zip(days, arrays, strict=True)}


def test_many_zero_bars_in_a_liquid_ticker_are_a_fault_with_its_ratio() -> None:
    # Usual is the median total of the clean sessions: 100, 300 and 200 times 10 shares.
    (fault,) = volume_faults(volumes((0, 10), (0, 30), (10, 100), (0, 20)))
    assert fault == VolumeFault("X", FIRST_DAY + timedelta(days=2), 10, 90 * 100 / 2000)


def test_faulty_sessions_do_not_set_their_own_standard() -> None:
    faults = volume_faults(volumes((0, 10), (40, 99), (40, 99), (40, 99)))
    assert [fault.day.day for fault in faults] == [2, 3, 4]


@pytest.mark.parametrize(
    "sessions",
    [
        [(9, 10), (0, 10), (0, 10)],  # one zero bar fewer than a fault
        [(3, 10), (3, 10), (60, 10)],  # thin: usually more than two
        [(50, 10), (60, 10)],  # thin throughout: no standard
        [(0, 10), (0, 1000)],  # a busy day without zero bars
        [],
    ],
)
def test_thin_tickers_and_single_zeros_are_no_finding(sessions: list[tuple[int, int]]) -> None:
    assert volume_faults(volumes(*sessions)) == ()


def test_each_ticker_has_a_standard_of_its_own() -> None:
    thin, liquid = volumes((50, 10), (50, 10), ticker="THIN"), volumes((0, 10), (50, 10), ticker="LIQ")
    assert [(fault.ticker, fault.day.day) for fault in volume_faults({**thin, **liquid})] == [("LIQ", 2)]


# --- lengths -------------------------------------------------------------------------------------


def test_sessions_below_what_a_window_needs_are_listed_and_days_only_if_no_ticker_has_enough() -> None:
    sessions = make_sessions(390, 390, 390)
    one, two, three = (session.day for session in sessions)
    held: dict[tuple[str, date], int] = {("A", one): 65, ("B", one): 3, ("A", two): 64, ("B", two): 7}
    assert too_short(held, 65) == {("B", one): 3, ("A", two): 64, ("B", two): 7}
    assert empty_days(held, sessions, 65) == {two: 64, three: 0}


def test_only_the_standard_days_say_what_is_usual() -> None:
    sessions = volumes((0, 10), (30, 99), (0, 1000))
    days = sorted({day for _, day in sessions})
    (fault,) = volume_faults(sessions, days[:2])
    assert fault.total_ratio == pytest.approx(6.93)
    assert volume_faults(sessions, days[1:2]) == ()

"""Nothing of a later minute or day reaches an earlier decision: whatever comes later changes no bit of its inputs,
and a signal that lies only in what comes later gives a fit to them no skill.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import contract
from app.dataset.build import Dataset, build_dataset
from app.dataset.cut import cut_sessions
from app.dataset.features import FloatArray, Rows
from app.dataset.grid import make_grid
from app.dataset.windows import WindowSet, window_set
from app.settings import DatasetSettings
from app.tables import arrow_schema
from tests.fakes import make_sessions, market_bars, with_column

PRICES = ("open", "high", "low", "close")


def disturbed(bars: pa.Table, mask: npt.NDArray[np.bool_], seed: int = 3) -> pa.Table:
    """The bars with other prices and volumes where the mask says."""
    random = np.random.default_rng(seed)
    for name in PRICES:
        values = bars[name].to_numpy()
        bars = with_column(bars, name, np.where(mask, values * random.uniform(0.5, 2, len(values)), values))
    volume = bars["volume"].to_numpy()
    return with_column(bars, "volume", np.where(mask, volume * 50 + 1, volume))


def starts_of(bars: pa.Table) -> npt.NDArray[np.int64]:
    starts: npt.NDArray[np.int64] = bars["ts"].cast(pa.int64()).to_numpy() // 1000
    return starts


# --- rows: one bar changes its own row, those of its ticker after it, and the market's of its minute ---------------

FEW = make_sessions(7, 5)
FEW_BARS = market_bars(["A", "B", "GAPPY"], FEW, gaps={"GAPPY": 3})


def rows_of(bars: pa.Table) -> dict[tuple[str, int], list[float]]:
    """All features of every minute, by ticker and time."""
    usual = np.linspace(-1, 1, contract.SESSION_MINUTES)
    found = {}
    for (ticker, day), piece in cut_sessions(bars, FEW).items():
        (session,) = (session for session in FEW if session.day == day)
        for minute, row in enumerate(make_grid(ticker, session, piece, usual).features.tolist()):
            found[ticker, session.open_ts + 60 * minute] = row
    return found


@pytest.mark.parametrize("changed", range(len(FEW_BARS)))
def test_a_bar_changes_no_row_before_it_and_of_other_tickers_the_market_s_return_of_its_minute_alone(
    changed: int,
) -> None:
    before, after = rows_of(FEW_BARS), rows_of(disturbed(FEW_BARS, np.arange(len(FEW_BARS)) == changed))
    bar, at = FEW_BARS["ticker"][changed].as_py(), starts_of(FEW_BARS)[changed]
    moved = {
        (ticker, ts, name)
        for ticker, ts in before
        for name, old, new in zip(contract.FEATURES, before[ticker, ts], after[ticker, ts], strict=True)
        if old != new
    }
    assert {(bar, at, name) for name in ("log_return", "log_volume", "log_range", "market_return")} <= moved
    assert not {(ticker, ts, name) for ticker, ts, name in moved if ts < at}
    assert {(ts, name) for ticker, ts, name in moved if ticker != bar} <= {(at, contract.FEATURE_MARKET_RETURN)}


# --- windows: everything after a decision may be otherwise ----------------------------------------------------------

SESSIONS = make_sessions(30, 30, 30, 30)
BARS = market_bars(["LIQ", "OTHER", "THIN"], SESSIONS, gaps={"THIN": 4})
SETTINGS = DatasetSettings(window_min=5, horizons_min=(1, 3), validation_days=1, test_days=1, max_filled_share=0.5)


def decisions(dataset: Dataset, until: int) -> dict[tuple[str, str, int], bytes]:
    """What a model is given, scaled, for each decision up to an instant."""
    found = {}
    for name, table in dataset.splits.items():
        windows = window_set(table, dataset.spec, SETTINGS.max_filled_share)
        for i in np.flatnonzero(windows.as_of <= until):
            key = name, windows.tickers[windows.ticker[i]], int(windows.as_of[i])
            found[key] = windows.inputs(slice(i, i + 1)).tobytes() + windows.target_std[i].tobytes()
    return found


PLAIN = build_dataset(BARS, SESSIONS, SETTINGS)


@settings(max_examples=40)
@given(day=st.integers(2, 3), minute=st.integers(0, 29), seed=st.integers(0, 99))
def test_whatever_comes_after_a_decision_of_validation_or_test_changes_no_bit_of_it(
    day: int, minute: int, seed: int
) -> None:
    now = SESSIONS[day].open_ts + 60 * minute
    other = build_dataset(disturbed(BARS, starts_of(BARS) > now, seed), SESSIONS, SETTINGS)
    assert decisions(other, now) == decisions(PLAIN, now)
    assert other.spec.scales == PLAIN.spec.scales
    assert other.spec.volume_profile == PLAIN.spec.volume_profile


@settings(max_examples=20)
@given(minute=st.integers(0, 29), seed=st.integers(0, 99))
def test_after_training_the_market_may_end(minute: int, seed: int) -> None:
    now = SESSIONS[3].open_ts + 60 * minute
    kept = BARS.filter(pa.array((starts_of(BARS) <= now) | (starts_of(BARS) < SESSIONS[3].open_ts + 60 * 8)))
    assert decisions(build_dataset(kept, SESSIONS, SETTINGS), now) == decisions(PLAIN, now)


@pytest.mark.parametrize("day", [2, 3])
def test_a_volume_that_proves_faulty_later_in_the_day_is_not_masked_before(day: int) -> None:
    now = SESSIONS[day].open_ts + 60 * 12
    later = (starts_of(BARS) > now) & (starts_of(BARS) < SESSIONS[day].close_ts)
    faulty = later & (BARS["ticker"].to_numpy(zero_copy_only=False) == "LIQ")
    other = build_dataset(
        with_column(BARS, "volume", np.where(faulty, 0, BARS["volume"].to_numpy())), SESSIONS, SETTINGS
    )
    assert [(fault.ticker, fault.day) for fault in other.faults] == [("LIQ", SESSIONS[day].day)]
    assert decisions(other, now) == decisions(PLAIN, now)


# --- a planted signal: only who may look ahead finds it -------------------------------------------------------------

LONG = make_sessions(*[90] * 8)
HORIZON = 3
TICKERS = ("A", "B", "C", "D")
A_MINUTE, A_DAY = 60, 86_400
LOOKING_AHEAD = DatasetSettings(window_min=5, horizons_min=(HORIZON,), validation_days=1, test_days=2)


def planted(where: str, later_s: int) -> pa.Table:
    """A random walk whose return over the horizon is told by the volume, or the range, of a bar that comes later.

    later_s: seconds from the decision to the bar that tells: that of the target, or a later one. A bar before the
    target would tell of minutes that are still to come when it is known, and a model might well use it.
    """
    random = np.random.default_rng(11)
    parts = []
    for ticker in TICKERS:
        close = 100 * np.exp(random.normal(0, 0.001, (len(LONG), 90)).cumsum(axis=1))
        told = np.full(close.shape, random.normal(0, 1, close.shape))
        moves = np.log(close[:, HORIZON:] / close[:, :-HORIZON]) / 0.001
        if later_s == A_DAY:
            told[1:, :-HORIZON] = moves[:-1]
        else:
            minutes = later_s // A_MINUTE
            told[:, minutes:] = moves[:, : 90 - minutes]
        opened = close * np.exp(random.normal(0, 0.0002, close.shape))
        spread = np.exp(0.001 * (5 + told)) if where == "range" else np.full(close.shape, 1.001)
        volume = np.exp(8 + told) if where == "volume" else random.integers(1000, 9000, close.shape)
        for number, session in enumerate(LONG):
            columns = {
                "ticker": [ticker] * 90,
                "ts": pa.array((session.open_ts + 60 * np.arange(90)) * 1000).cast(pa.timestamp("ms", tz="UTC")),
                "open": opened[number],
                "high": close[number] * spread[number],
                "low": close[number] / spread[number],
                "close": close[number],
                "volume": volume[number].astype(np.int64),
            }
            parts.append(pa.table(columns, schema=arrow_schema(contract.BARS)))
    return pa.concat_tables(parts)


def rows_later(windows: WindowSet, table: pa.Table, later_s: int) -> tuple[npt.NDArray[np.bool_], Rows]:
    """The feature rows so many seconds after each window's last: for which windows there is one, and theirs."""
    tickers = table["ticker"].to_pylist()
    place = {key: i for i, key in enumerate(zip(tickers, starts_of(table).tolist(), strict=True))}
    wanted = [(windows.tickers[c], int(t) + later_s) for c, t in zip(windows.ticker, windows.as_of, strict=True)]
    known = np.array([key in place for key in wanted])
    return known, windows.rows[[place[key] for key in wanted if key in place]]


def skill(train: tuple[FloatArray, FloatArray], test: tuple[FloatArray, FloatArray]) -> float:
    """Of a linear fit to (inputs, targets) of the training windows, over the forecast 0 on those of the test."""

    def design(inputs: FloatArray) -> FloatArray:
        return np.concatenate([np.ones((len(inputs), 1)), inputs.reshape(len(inputs), -1)], axis=1)

    weights = np.linalg.lstsq(design(train[0]), train[1])[0]
    return float(1 - np.sum((design(test[0]) @ weights - test[1]) ** 2) / np.sum(test[1] ** 2))


@pytest.mark.parametrize("where", ["volume", "range"])
@pytest.mark.parametrize("later_s", [HORIZON * A_MINUTE, 10 * A_MINUTE, A_DAY], ids=["target", "later", "next day"])
def test_a_signal_that_is_told_only_later_gives_no_skill_but_to_who_looks_ahead(where: str, later_s: int) -> None:
    dataset = build_dataset(planted(where, later_s), LONG, LOOKING_AHEAD)
    honest, ahead = [], []
    for name in ("train", "test"):
        windows = window_set(dataset.splits[name], dataset.spec, 0.2)
        known, later = rows_later(windows, dataset.splits[name], later_s)
        targets = (windows.targets / windows.target_std)[:, 0].astype(np.float64)
        honest.append((windows.inputs(slice(None)).astype(np.float64), targets))
        ahead.append((later.astype(np.float64), targets[known]))
        assert len(later) > 300
    assert skill(ahead[0], ahead[1]) > 0.5
    assert skill(honest[0], honest[1]) < 0.02

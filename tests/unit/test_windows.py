"""Windows: which minutes they hold, where their target lies, and that they cost no copies."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import contract
from app.dataset.build import ROWS
from app.dataset.spec import TickerScale
from app.dataset.windows import session_starts, window_set
from app.errors import TooFewBars
from app.sessions import Session
from tests.fakes import make_sessions
from tests.models import plain_spec


def rows_of(ticker: str, session: Session, observed: list[bool] | None = None) -> pa.Table:
    """Dense rows in which each minute is told from all others by its close and its features."""
    n = session.minutes
    ts = (session.open_ts + 60 * np.arange(n)) * 1000
    code = float(sum(ticker.encode()) % 89) + (session.day.toordinal() % 7) * 100
    columns: dict[str, Any] = {
        "ticker": [ticker] * n,
        "ts": pa.array(ts).cast(ROWS.field("ts").type),
        "close": 1000 * code + np.arange(n, dtype=np.float64) + 1,
        "observed": observed or [True] * n,
    }
    columns |= {name: (i + code + np.arange(n) / 1000).astype(np.float32) for i, name in enumerate(contract.FEATURES)}
    columns["log_volume"] = np.arange(n).astype(np.float32)
    return pa.table(columns, schema=ROWS)


class Naive(NamedTuple):
    """One window by a plain loop."""

    ticker: str
    as_of: int
    inputs: list[list[float]]
    last_price: float
    future_price: list[float]


def naive_windows(table: pa.Table, window: int, horizons: list[int], max_filled_share: float) -> list[Naive]:
    """All windows by a double loop over plain rows."""
    horizon = max(horizons)
    rows = table.to_pylist()
    found: list[Naive] = []
    for i in range(len(rows)):
        part = rows[i : i + window + horizon]
        if len(part) < window + horizon:
            continue
        steps = [(b["ts"] - a["ts"]).total_seconds() for a, b in pairwise(part)]
        if len({row["ticker"] for row in part}) > 1 or set(steps) != {60.0}:
            continue
        inputs, last = part[:window], part[window - 1]
        missing = sum(not row["observed"] for row in inputs)
        if last["observed"] and missing <= max_filled_share * window:
            values = [[row["log_return"], row["log_volume"]] for row in inputs]
            future = [part[window - 1 + minutes]["close"] for minutes in horizons]
            found.append(Naive(last["ticker"], int(last["ts"].timestamp()), values, last["close"], future))
    return found


@given(
    lengths=st.lists(st.integers(1, 14), min_size=1, max_size=4),
    tickers=st.integers(1, 3),
    window=st.integers(2, 6),
    horizons=st.sets(st.integers(1, 4), min_size=1, max_size=3).map(sorted),
    max_filled_share=st.sampled_from([0.0, 0.2, 0.5, 0.99]),
    data=st.data(),
)
def test_windows_are_those_of_a_double_loop_over_the_rows(
    lengths: list[int], tickers: int, window: int, horizons: list[int], max_filled_share: float, data: st.DataObject
) -> None:
    def observed(n: int) -> list[bool]:
        return data.draw(st.lists(st.booleans(), min_size=n, max_size=n))

    sessions = make_sessions(*lengths)
    table = pa.concat_tables([rows_of(t, s, observed(s.minutes)) for t in "ABC"[:tickers] for s in sessions])
    expected, spec = naive_windows(table, window, horizons, max_filled_share), plain_spec(window, tuple(horizons))
    if not expected:
        furthest = f"no window of {window} minutes with a target {max(horizons)} minutes later"
        with pytest.raises(TooFewBars, match=furthest):
            window_set(table, spec, max_filled_share)
        return
    windows = window_set(table, spec, max_filled_share)
    assert [windows.tickers[i] for i in windows.ticker] == [w.ticker for w in expected]
    assert windows.as_of.tolist() == [w.as_of for w in expected]
    assert windows.inputs(slice(None)).tolist() == [w.inputs for w in expected]
    assert windows.last_price.tolist() == [w.last_price for w in expected]
    assert windows.future_price.tolist() == [w.future_price for w in expected]
    moves = [np.log(np.array(w.future_price) / w.last_price).astype(np.float32).tolist() for w in expected]
    assert windows.targets.tolist() == moves


def test_the_target_of_minutes_i_to_i_59_is_minute_i_64() -> None:
    (session,) = make_sessions(70)
    windows = window_set(rows_of("A", session), plain_spec(60, (5,)), 0.0)
    closes = rows_of("A", session)["close"].to_numpy()
    for i in range(6):
        assert windows.inputs(slice(i, i + 1))[0, [0, -1], 1].tolist() == [i, i + 59]
        assert windows.last_price[i] == closes[i + 59]
        assert windows.future_price[i].tolist() == [closes[i + 64]]
        assert windows.targets[i].tolist() == [np.float32(np.log(closes[i + 64] / closes[i + 59]))]
        assert windows.as_of[i] == session.open_ts + 60 * (i + 59)


def test_each_horizon_has_a_target_of_its_own_counted_from_the_last_input() -> None:
    (session,) = make_sessions(15)
    closes = 100.0 * 2.0 ** np.arange(15)
    table = rows_of("A", session)
    table = table.set_column(table.schema.get_field_index("close"), "close", pa.array(closes))
    windows = window_set(table, plain_spec(4, (1, 2, 5, 10), target_std=0.5), 0.0)
    assert len(windows) == 15 - 4 - 10 + 1  # a window counts when its furthest target lies in the session
    for i in range(2):
        assert windows.future_price[i].tolist() == [closes[i + 3 + minutes] for minutes in (1, 2, 5, 10)]
        assert windows.targets[i] == pytest.approx(np.log(2) * np.array([1, 2, 5, 10]))
    assert windows.target_std.tolist() == [[0.5] * 4] * 2
    assert {array.dtype.name for array in (windows.targets, windows.target_std)} == {"float32"}


@pytest.mark.parametrize(("minutes", "count"), [(390, 326), (210, 146), (65, 1), (64, 0), (10, 0)])
def test_a_session_without_gaps_holds_minutes_less_window_less_horizon_plus_one(minutes: int, count: int) -> None:
    assert len(session_starts(np.ones(minutes, bool), 60, 5, 0.0)) == count


def test_a_window_needs_a_bar_in_its_last_minute_and_few_missing_ones() -> None:
    observed = np.array([1, 0, 1, 1, 1, 0, 1, 1, 1, 1], bool)
    # Window 4, horizon 1, one missing minute of four allowed: the starts 0..5 end in minutes 3..8.
    assert session_starts(observed, 4, 1, 0.25).tolist() == [0, 1, 3, 4, 5]
    assert session_starts(observed, 4, 1, 0.24).tolist() == []
    assert session_starts(np.append(observed, True), 4, 1, 0.24).tolist() == [6]


def test_targets_may_fall_on_a_missing_minute_whose_price_is_the_last_one() -> None:
    assert session_starts(np.array([1, 1, 0], bool), 2, 1, 0.0).tolist() == [0]


def test_no_window_joins_two_tickers_even_if_one_begins_where_the_other_ends() -> None:
    (first,) = make_sessions(5)
    second = Session(first.day, first.close_ts, 5)
    windows = window_set(pa.concat_tables([rows_of("A", first), rows_of("B", second)]), plain_spec(3, (1,)), 0.0)
    assert windows.ticker.tolist() == [0, 0, 1, 1]


def test_the_rows_are_held_once_whatever_the_window() -> None:
    table = rows_of("A", make_sessions(390)[0])
    for window in (2, 60, 240):
        windows = window_set(table, plain_spec(window, (1, 5)), 0.0)
        assert windows.rows.shape == (390, 2)
        held = {name: array.shape[1:] for name, array in vars(windows).items() if isinstance(array, np.ndarray)}
        by_horizon = dict.fromkeys(("targets", "future_price", "target_std"), (2,))
        assert held == dict.fromkeys(held, ()) | {"rows": (2,)} | by_horizon


def test_inputs_of_chosen_windows_are_those_windows_contiguous_for_the_model() -> None:
    windows = window_set(rows_of("A", make_sessions(20)[0]), plain_spec(4, (1,)), 0.0)
    chosen = windows.inputs(np.array([7, 0, 7]))
    assert chosen.shape == (3, 4, 2)
    assert chosen.flags.c_contiguous
    assert chosen[:, 0, 1].tolist() == [7, 0, 7]


def test_each_ticker_is_scaled_by_its_own_numbers_and_a_new_one_by_the_pooled() -> None:
    own, pooled = TickerScale((0, 1), (1, 2), (0.5,)), TickerScale((0, 3), (1, 4), (0.25,))
    spec = replace(plain_spec(2, (1,)), scales={"A": own}, default_scale=pooled)
    session = make_sessions(3)[0]
    windows = window_set(pa.concat_tables([rows_of("A", session), rows_of("B", session)]), spec, 0.0)
    assert windows.inputs(slice(None))[:, :, 1].tolist() == [[-0.5, 0.0], [-0.75, -0.5]]
    assert windows.target_std.tolist() == [[0.5], [0.25]]
    assert windows.ticker.tolist() == [0, 1]


def test_the_model_s_features_are_cut_in_its_order() -> None:
    session = make_sessions(8)[0]
    names = ("session_minute", "log_return", "log_range")
    table = rows_of("A", session)
    windows = window_set(table, plain_spec(4, (1,), names), 0.0)
    rows = np.stack([table[name].to_numpy() for name in names], axis=-1)
    assert windows.inputs(slice(2, 3))[0].tolist() == rows[2:6].tolist()


@given(first=st.integers(0, 30), count=st.integers(1, 30))
def test_a_part_of_the_windows_holds_those_windows_and_their_rows_alone(first: int, count: int) -> None:
    spec = plain_spec(4, (1, 2))
    table = pa.concat_tables([rows_of(ticker, session) for ticker in "AB" for session in make_sessions(9, 15)])
    windows = window_set(table, spec, 0.0)
    part = windows.between(first, first + count)
    chosen = slice(first, min(first + count, len(windows)))
    assert len(part) == chosen.stop - chosen.start if first < len(windows) else len(part) == 0
    if len(part):
        assert part.inputs(slice(None)).tolist() == windows.inputs(chosen).tolist()
        assert len(part.rows) == windows.starts[chosen][-1] - windows.starts[first] + 4
    for name in ("targets", "last_price", "future_price", "target_std", "ticker", "as_of"):
        assert getattr(part, name).tolist() == getattr(windows, name)[chosen].tolist()
    assert (part.tickers, part.window) == (windows.tickers, 4)

"""Windows as views: an index into resident rows, never a copy of 60 overlapping ones.

A window of `window_min` rows starts at `start`; its last input is row start + window - 1 and its targets are
the log returns from there to row start + window - 1 + horizon (window 60, horizon 5: rows i..i+59, target
i+64). Windows lie within one session of one ticker, their furthest target too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.contract import BAR_S
from app.dataset.features import FloatArray, Rows, scale
from app.dataset.spec import Spec
from app.errors import TooFewBars
from app.ingest.bars import bar_starts

Index = npt.NDArray[np.int64]

_BY_WINDOW = ("targets", "last_price", "future_price", "target_std", "ticker", "as_of")


def session_starts(observed: npt.NDArray[np.bool_], window: int, horizon: int, max_filled_share: float) -> Index:
    """Where windows start in one session: int64 (n,).

    observed: bool (minutes,). A window counts when its last minute holds a bar (a forecast is made only
    when one arrives), at most `max_filled_share` of its minutes lack one, and its target lies within the
    session.
    """
    count = len(observed) - window - horizon + 1
    if count <= 0:
        return np.empty(0, np.int64)
    filled = np.concatenate([[0], np.cumsum(~observed)])
    starts = np.arange(count)
    missing = filled[starts + window] - filled[starts]
    chosen: Index = starts[observed[starts + window - 1] & (missing <= max_filled_share * window)]
    return chosen


@dataclass(frozen=True)
class WindowSet:
    """The rows of one split, resident, and the windows that they hold.

    rows: scaled features, float32 (rows, features); starts: int64 (n,) into rows; targets: float32
    (n, horizons) log returns; last_price: float64 (n,) USD at the window's end; future_price: float64
    (n, horizons) USD at its targets; target_std: float32 (n, horizons) units in which the model forecasts;
    ticker: int64 (n,) into tickers; as_of: int64 (n,) epoch seconds of the last input's bar.
    """

    rows: Rows
    starts: Index
    targets: Rows
    last_price: FloatArray
    future_price: FloatArray
    target_std: Rows
    ticker: Index
    as_of: Index
    tickers: tuple[str, ...]
    window: int

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.starts)

    def between(self, first: int, end: int) -> WindowSet:
        """The windows numbered first to end - 1, with the rows that they need alone."""
        starts = self.starts[first:end]
        low = int(starts[0]) if len(starts) else 0
        high = int(starts[-1]) + self.window if len(starts) else 0
        cut = {name: getattr(self, name)[first:end] for name in _BY_WINDOW}
        return replace(self, rows=self.rows[low:high], starts=starts - low, **cut)

    def inputs(self, chosen: Index | slice) -> Rows:
        """Inputs of the chosen windows: float32 (k, window, features), gathered from one view."""
        view = np.lib.stride_tricks.sliding_window_view(self.rows, self.window, axis=0)
        return np.ascontiguousarray(view[self.starts[chosen]].transpose(0, 2, 1))


def joined(parts: Iterable[WindowSet], rows: int, windows: int) -> WindowSet:
    """Sets of windows, one or more, as one of so many rows and windows in all.

    A part is copied before the next one is asked for: it takes no more memory than the whole and one part.
    """
    whole: dict[str, Any] = {}
    codes: dict[str, int] = {}
    row = at = 0
    for part in parts:
        code = np.array([codes.setdefault(name, len(codes)) for name in part.tickers], np.int64)
        moved = replace(part, starts=part.starts + row, ticker=code[part.ticker])
        for name in ("rows", "starts", *_BY_WINDOW):
            values = getattr(moved, name)
            first, count = (row, rows) if name == "rows" else (at, windows)
            if name not in whole:
                whole[name] = np.empty((count, *values.shape[1:]), values.dtype)
            whole[name][first : first + len(values)] = values
        row, at, window = row + len(part.rows), at + len(part), part.window
    return WindowSet(**whole, tickers=tuple(codes), window=window)


def window_set(table: pa.Table, spec: Spec, max_filled_share: float) -> WindowSet:
    """Cut stored rows (dense, ordered by ticker and time) into windows, of whole sessions in the rows' order.

    Raises TooFewBars when they hold none.
    """
    encoded = table["ticker"].combine_chunks().dictionary_encode()
    tickers: tuple[str, ...] = tuple(encoded.dictionary.to_pylist())
    code = encoded.indices.to_numpy().astype(np.int64)
    ts = bar_starts(table)
    close = table["close"].to_numpy()
    observed = table["observed"].to_numpy()
    mean, std, target_std = spec.scaling(tickers)
    raw = np.stack([table[name].to_numpy() for name in spec.features], axis=-1).astype(np.float32)
    edges = np.flatnonzero((np.diff(code) != 0) | (np.diff(ts) != BAR_S)) + 1
    bounds = zip(np.concatenate([[0], edges]), np.concatenate([edges, [len(code)]]), strict=True)
    window, horizon = spec.window_min, max(spec.horizons_min)
    starts = np.concatenate(
        [first + session_starts(observed[first:end], window, horizon, max_filled_share) for first, end in bounds]
    )
    if not len(starts):
        raise TooFewBars(f"no window of {window} minutes with a target {horizon} minutes later in {len(table)} rows")
    last = starts + window - 1
    future_price = np.stack([close[last + minutes] for minutes in spec.horizons_min], axis=-1)
    return WindowSet(
        rows=scale(raw, mean[code], std[code]),
        starts=starts,
        targets=np.log(future_price / close[last, None]).astype(np.float32),
        last_price=close[last],
        future_price=future_price,
        target_std=target_std[code[last]],
        ticker=code[last],
        as_of=ts[last],
        tickers=tickers,
        window=window,
    )

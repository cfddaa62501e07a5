"""Bars on their way through the stream, and what the other bars of their poll say of the market."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from app.dataset.features import FloatArray, Minutes, market_returns
from app.ingest.bars import bar_starts

_PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True)
class Ticks:
    """Bars of one micro-batch for one bucket, in any order; all (n,).

    ticker: str; ts: epoch seconds; open, high, low, close: USD; volume: shares; market_return: see `columns_of`.
    """

    ticker: npt.NDArray[np.object_]
    ts: Minutes
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    market_return: FloatArray


def columns_of(bars: pa.Table) -> pa.Table:
    """The bars of one poll (contract.BARS) in the stream's columns, those of Ticks, ordered by ticker and ts.

    A later step sees the tickers of its own bucket alone, so the market's return in each minute is taken here:
    the mean over all bars of that minute in this poll. A poll that brings every ticker's bar of a minute gives
    what training had, to the last bit. A bar that comes in a later poll than the others of its minute is
    compared with the bars of that minute in its own poll, and the others have been compared without it. Stored
    bars of whole sessions may be given as one poll: they are what training had.
    """
    bars = bars.sort_by([("ticker", "ascending"), ("ts", "ascending")])
    ts, prices = bar_starts(bars), {name: bars[name].to_numpy() for name in _PRICES}
    columns = {
        "ticker": bars["ticker"],
        "ts": ts,
        **prices,
        "volume": bars["volume"].to_numpy().astype(np.float64),
        "market_return": market_returns(ts, prices["open"], prices["close"]),
    }
    return pa.table(columns)


def ticks_from_table(columns: pa.Table) -> Ticks:
    """Rows in the stream's columns."""
    return Ticks(**{field.name: columns[field.name].to_numpy() for field in fields(Ticks)})


def ticks_from_frames(frames: Iterable[pd.DataFrame]) -> Ticks:
    """The frames that Spark hands over for one group, in the stream's columns."""
    frame = pd.concat(list(frames), ignore_index=True)
    return Ticks(**{field.name: frame[field.name].to_numpy() for field in fields(Ticks)})

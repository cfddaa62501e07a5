"""The features of one minute: one function for training and for serving, causal by construction.

A row needs the minute's own bar, the close before it, the session's first open and what the other tickers'
bars of the same minute say: nothing later. Rows are float32 and not scaled; `scale` is applied by whoever
feeds the model, with the numbers of the training days.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app import contract

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]
Minutes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Minute:
    """Bars of n minutes, with what they are compared with; all (n,).

    open, high, low, close: USD. previous_close: the close before; that of a session's first bar is the bar's
    own open, so that no overnight move enters. session_open: open of the session's first bar. volume: shares,
    NaN where it is not to be trusted. number: minutes since the session's open. market_return: of the bars of
    all tickers in that minute, see `market_returns`.
    """

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    previous_close: FloatArray
    session_open: FloatArray
    volume: FloatArray
    number: Minutes
    market_return: FloatArray

    @classmethod
    def without_trade(cls, price: FloatArray, session_open: FloatArray, number: Minutes) -> Minute:
        """Minutes in which nothing traded: the price stands still, and the market is not known."""
        nothing = np.zeros(len(price))
        return cls(price, price, price, price, price, session_open, nothing, number, nothing)


def minute_features(names: Sequence[str], minute: Minute, volume_profile: FloatArray) -> Rows:
    """Feature rows, elementwise: float32 (n, len(names)).

    volume_profile: (minutes of a full session,) the usual log(1 + volume) of each minute of a session less
    the ticker's mean, from the training days.
    """
    made: dict[str, Callable[[], FloatArray | Minutes]] = {
        contract.FEATURE_RETURN: lambda: np.log(minute.close / minute.previous_close),
        contract.FEATURE_VOLUME: lambda: np.log1p(minute.volume),
        contract.FEATURE_SESSION_RETURN: lambda: np.log(minute.close / minute.session_open),
        contract.FEATURE_RANGE: lambda: np.log(minute.high / minute.low),
        contract.FEATURE_RELATIVE_VOLUME: lambda: np.log1p(minute.volume) - volume_profile[minute.number],
        contract.FEATURE_MARKET_RETURN: lambda: minute.market_return,
        contract.FEATURE_SESSION_MINUTE: lambda: minute.number,
    }
    rows: Rows = np.stack([made[name]().astype(np.float32) for name in names], axis=-1)
    return rows


def market_returns(ts: Minutes, open_: FloatArray, close: FloatArray) -> FloatArray:
    """For each bar (n,) the mean log(close / open) over the bars that start with it, its own included.

    The sums run in the order of the bars: give them by ticker, so that the same bars give the same bits.
    """
    _, group = np.unique(ts, return_inverse=True)
    total = np.bincount(group, np.log(close / open_))
    mean: FloatArray = (total / np.bincount(group))[group]
    return mean


def scale(rows: Rows, mean: Rows, std: Rows) -> Rows:
    """Standardise feature rows: (..., features) with (..., features) broadcast; NaN becomes 0, the mean.

    Elementwise in float32, so that one row scales to the same bits wherever it stands.
    """
    scaled: Rows = np.nan_to_num((rows - mean) / std, nan=0.0, copy=False)
    return scaled

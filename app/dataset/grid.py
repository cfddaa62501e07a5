"""One ticker's session on the full grid of its minutes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.contract import BAR_S, FEATURE_RELATIVE_VOLUME, FEATURE_VOLUME, FEATURES
from app.dataset.features import FloatArray, Minute, Minutes, Rows, minute_features
from app.sessions import Session

_OF_VOLUME = [FEATURES.index(name) for name in (FEATURE_VOLUME, FEATURE_RELATIVE_VOLUME)]


@dataclass(frozen=True)
class Bars:
    """Bars of one ticker in one session, ascending and unique; all (n,).

    ts: epoch seconds; prices: USD; volume: shares, NaN where it is not to be trusted; market_return: see
    app.dataset.features.
    """

    ts: Minutes
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    market_return: FloatArray


@dataclass(frozen=True)
class SessionGrid:
    """A session of one ticker, every minute present.

    close: float64 (minutes,) USD, the last one carried over missing minutes (the open before the first);
    observed: bool (minutes,); features: float32 (minutes, all of the contract's), not scaled.
    """

    ticker: str
    session: Session
    close: FloatArray
    observed: npt.NDArray[np.bool_]
    features: Rows

    @property
    def filled_minutes(self) -> int:
        """Minutes without a bar."""
        return int(len(self.observed) - self.observed.sum())


def make_grid(ticker: str, session: Session, bars: Bars, volume_profile: FloatArray) -> SessionGrid:
    """Lay the bars of one session on its grid. A return after missing minutes spans them, as the price did."""
    number = (bars.ts - session.open_ts) // BAR_S
    observed = np.zeros(session.minutes, bool)
    observed[number] = True
    last_bar = np.cumsum(observed) - 1  # index of the newest bar at each minute, -1 before the first
    close = np.where(last_bar >= 0, bars.close[last_bar], bars.open[0])
    session_open = np.full(session.minutes, bars.open[0])
    still = Minute.without_trade(close, session_open, np.arange(session.minutes))
    features = minute_features(FEATURES, still, volume_profile)
    if np.isnan(bars.volume).all():  # a session whose volume is masked knows it of no minute
        features[:, _OF_VOLUME] = np.nan
    traded = Minute(
        open=bars.open,
        high=bars.high,
        low=bars.low,
        close=bars.close,
        previous_close=np.concatenate([bars.open[:1], bars.close[:-1]]),
        session_open=session_open[: len(number)],
        volume=bars.volume,
        number=number,
        market_return=bars.market_return,
    )
    features[number] = minute_features(FEATURES, traded, volume_profile)
    return SessionGrid(ticker, session, close, observed, features)

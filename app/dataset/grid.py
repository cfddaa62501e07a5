"""One ticker's session on the full grid of its minutes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.contract import BAR_S, FEATURE_VOLUME, FEATURES
from app.dataset.features import FILLED_ROW, FloatArray, Rows, minute_features
from app.sessions import Session


@dataclass(frozen=True)
class SessionGrid:
    """A session of one ticker, every minute present.

    close: float64 (minutes,) USD, the last one carried over missing minutes (the open before the first);
    observed: bool (minutes,); features: float32 (minutes, features), not scaled.
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


def make_grid(
    ticker: str,
    session: Session,
    ts: npt.NDArray[np.int64],
    open_: FloatArray,
    close: FloatArray,
    volume: FloatArray,
) -> SessionGrid:
    """Lay the bars of one session, ascending and unique, on its grid.

    ts: (n,) epoch seconds within the session; open_, close: (n,) USD; volume: (n,), NaN where untrusted.
    A return after missing minutes spans them, as the price did.
    """
    minute = (ts - session.open_ts) // BAR_S
    observed = np.zeros(session.minutes, bool)
    observed[minute] = True
    last_bar = np.cumsum(observed) - 1  # index of the newest bar at each minute, -1 before the first
    dense_close = np.where(last_bar >= 0, close[last_bar], open_[0])
    features = np.tile(FILLED_ROW, (session.minutes, 1))
    if np.isnan(volume).all():  # a session whose volume is masked knows it of no minute
        features[:, FEATURES.index(FEATURE_VOLUME)] = np.nan
    features[minute] = minute_features(close, np.concatenate([open_[:1], close[:-1]]), volume)
    return SessionGrid(ticker, session, dense_close, observed, features)

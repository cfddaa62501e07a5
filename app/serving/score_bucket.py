"""What runs inside a Spark worker for each bucket of tickers and micro-batch: state in, predictions out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from app.serving.rings import ReadyWindows, Rings, Ticks
from app.serving.scoring import Scorer, load_scorer
from app.serving.warm import read_warm_state
from app.sessions import Session

STATE_SCHEMA = "rings binary"
OUTPUT_SCHEMA = (
    "ticker string, as_of long, horizon_min int, last_price double, predicted_return double,"
    " predicted_price double, carried_minutes int, model_id string"
)


@dataclass(frozen=True)
class StreamPlace:
    """What a worker needs to know; travels with the query."""

    run_id: str
    market_bucket: str
    model_bucket: str
    model_id: str
    window_min: int
    sessions: tuple[Session, ...]


def bucket_scorer(place: StreamPlace) -> Callable[[Any, Iterable[pd.DataFrame], Any], Iterator[pd.DataFrame]]:
    """The function for `applyInPandasWithState`: one blob of state for all tickers of a bucket."""

    def score(key: Any, frames: Iterable[pd.DataFrame], state: Any) -> Iterator[pd.DataFrame]:
        ticks = _ticks(frames)
        rings = Rings.from_bytes(state.get[0], place.window_min) if state.exists else Rings.empty((), place.window_min)
        rings = with_new_tickers(rings, ticks, place)
        ready = rings.apply(ticks, place.sessions)
        state.update((rings.to_bytes(),))
        yield predictions(ready, rings.tickers, load_scorer(place.model_bucket, place.model_id))

    return score


def with_new_tickers(rings: Rings, ticks: Ticks, place: StreamPlace) -> Rings:
    """The rings with those of tickers seen for the first time, warm where stored bars allow."""
    new = sorted(set(ticks.ticker) - set(rings.tickers))
    if not new:
        return rings
    return rings.joined(read_warm_state(place.market_bucket, place.run_id, place.window_min).select(new))


def predictions(ready: ReadyWindows, tickers: tuple[str, ...], scorer: Scorer) -> pd.DataFrame:
    """Score the windows together: one row for each, in OUTPUT_SCHEMA."""
    names = [tickers[i] for i in ready.ticker]
    returns = scorer.predict(names, ready.rows)
    return pd.DataFrame(
        {
            "ticker": names,
            "as_of": ready.as_of,
            "horizon_min": np.full(len(names), scorer.spec.horizon_min, np.int32),
            "last_price": ready.last_price,
            "predicted_return": returns,
            "predicted_price": ready.last_price * np.exp(returns),
            "carried_minutes": ready.carried,
            "model_id": scorer.model_id,
        }
    )


def _ticks(frames: Iterable[pd.DataFrame]) -> Ticks:
    frame = pd.concat(list(frames), ignore_index=True)
    return Ticks(
        ticker=frame["ticker"].to_numpy(object),
        ts=frame["ts"].to_numpy(np.int64),
        open=frame["open"].to_numpy(np.float64),
        close=frame["close"].to_numpy(np.float64),
        volume=frame["volume"].to_numpy(np.float64),
    )

"""What runs inside a Spark worker for each bucket of tickers and micro-batch: state in, predictions out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from app.dataset.forecast import MEAN, OUTPUTS, P10, P50, P90
from app.dataset.spec import Spec
from app.serving.ring_blob import pack, unpack
from app.serving.rings import ReadyWindows, Rings
from app.serving.scoring import Scorer, load_scorer
from app.serving.ticks import Ticks, ticks_from_frame
from app.serving.warm import read_warm_state
from app.serving.worker import forget_archives
from app.sessions import Session

STATE_SCHEMA = "rings binary"
OUTPUT_SCHEMA = (
    "ticker string, as_of long, horizon_min int, last_price double, predicted_return double,"
    " predicted_price double, price_p10 double, price_p50 double, price_p90 double, carried_minutes int,"
    " model_id string, summary string"
)
"""The last row of each bucket holds no prediction: its summary is JSON of what became of the bucket's ticks."""


@dataclass(frozen=True)
class StreamPlace:
    """What a worker needs to know; travels with the query.

    tickers: of the run; sessions: those that a window may reach back into, and the one that is streamed, ascending;
    since_ts: where what is streamed starts (epoch s); watermark: minutes of a ticker that stay open.
    """

    run_id: str
    market_bucket: str
    model_bucket: str
    tickers: frozenset[str]
    sessions: tuple[Session, ...]
    since_ts: int
    watermark: int


def bucket_scorer(place: StreamPlace) -> Callable[[Any, Iterable[pd.DataFrame], Any], Iterator[pd.DataFrame]]:
    """The function for `applyInPandasWithState`: one blob of state for all tickers of a bucket."""

    def score(key: Any, frames: Iterable[pd.DataFrame], state: Any) -> Iterator[pd.DataFrame]:
        forget_archives()
        frame = pd.concat(list(frames), ignore_index=True)
        scorer = load_scorer(place.model_bucket, str(frame["model_id"].iloc[0]))
        asked_for = frame["ticker"].isin(place.tickers) & (frame["ts"] >= place.since_ts)
        ticks = ticks_from_frame(frame[asked_for])  # a source of others' making may hold more
        empty = Rings.empty((), scorer.spec, place.watermark)
        rings = unpack(state.get[0], scorer.spec) if state.exists else empty
        rings = with_new_tickers(rings, ticks, place, scorer.spec)
        ready, counts = rings.apply(ticks, place.sessions)
        counts = counts.plus(skipped=int((~asked_for).sum()))
        state.update((pack(rings),))
        started = time.perf_counter()
        scored = predictions(ready, rings.tickers, scorer)
        scoring_s = time.perf_counter() - started
        yield scored
        yield _summary({"ticks": len(frame), "counts": asdict(counts), "scoring_s": scoring_s})

    return score


def with_new_tickers(rings: Rings, ticks: Ticks, place: StreamPlace, spec: Spec) -> Rings:
    """The rings with those of tickers seen for the first time, warm where stored bars allow."""
    new = sorted(set(ticks.ticker) - set(rings.tickers))
    if not new:
        return rings
    warm = read_warm_state(place.market_bucket, place.run_id, spec)
    return rings.joined((warm or Rings.empty((), spec, place.watermark)).select(new))


def _summary(counts: dict[str, Any]) -> pd.DataFrame:
    """The row in OUTPUT_SCHEMA that tells of the others."""
    kinds = {"string": "", "long": 0, "int": 0, "double": 0.0}
    columns = (column.split() for column in OUTPUT_SCHEMA.split(", "))
    row = {name: kinds[kind] for name, kind in columns} | {"summary": json.dumps(counts)}
    return pd.DataFrame([row])


def predictions(ready: ReadyWindows, tickers: tuple[str, ...], scorer: Scorer) -> pd.DataFrame:
    """Score the windows together: one row for each and each horizon, in OUTPUT_SCHEMA."""
    horizons = scorer.spec.horizons_min
    names = [tickers[i] for i in ready.ticker]
    returns = scorer.predict(names, ready.rows).reshape(-1, OUTPUTS)  # window after window
    last_price = np.repeat(ready.last_price, len(horizons))
    prices = last_price[:, None] * np.exp(returns)
    return pd.DataFrame(
        {
            "ticker": np.repeat(np.array(names, object), len(horizons)),
            "as_of": np.repeat(ready.as_of, len(horizons)),
            "horizon_min": np.tile(np.array(horizons, np.int32), len(names)),
            "last_price": last_price,
            "predicted_return": returns[:, MEAN],
            "predicted_price": prices[:, MEAN],
            "price_p10": prices[:, P10],
            "price_p50": prices[:, P50],
            "price_p90": prices[:, P90],
            "carried_minutes": np.repeat(ready.carried, len(horizons)),
            "model_id": scorer.model_id,
            "summary": "",
        }
    )

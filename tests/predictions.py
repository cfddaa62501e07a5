"""Predictions made by hand, and stored as the stream stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app import contract
from app.sessions import Session
from app.storage import Bucket
from app.tables import arrow_schema, put_table

PRODUCED = datetime(2026, 1, 1, tzinfo=UTC)


def predict(
    session: Session,
    prices: Mapping[str, npt.ArrayLike],
    *,
    horizons: Sequence[int] = (5,),
    returns: Mapping[tuple[str, int], npt.ArrayLike] | None = None,
    first_minute: int = 0,
    width: float = 0.001,
    produced_at: datetime = PRODUCED,
    model_id: str = "m",
) -> pa.Table:
    """Predictions as of each minute from `first_minute` on, by as_of, ticker and horizon.

    prices: by ticker, its close in each minute, NaN where it has no bar; returns: by ticker and horizon the log return
    predicted in each minute, by default 0; width: of p10 and p90 from the middle, as a log return.
    """
    rows: list[dict[str, Any]] = []
    opened = datetime.fromtimestamp(session.open_ts, UTC)
    for ticker, closes in prices.items():
        for minute, price in enumerate(np.asarray(closes, np.float64)):
            for horizon in horizons:
                told = 0.0 if returns is None else float(np.asarray(returns[ticker, horizon])[minute])
                if np.isfinite(price):
                    at = opened + timedelta(minutes=first_minute + minute)
                    rows.append(_row(ticker, at, horizon, float(price), told, width, produced_at, model_id))
    table = pa.Table.from_pylist(rows, arrow_schema(contract.PREDICTIONS))
    return table.sort_by([(name, "ascending") for name in ("as_of", "ticker", "horizon_min")])


def store(bucket: Bucket, session: Session, table: pa.Table, run_id: str = "r", micro_batch: int = 0) -> str:
    """Write an object of a session; returns its key."""
    key = contract.predictions_key(session.day, run_id, micro_batch)
    put_table(bucket, key, table)
    return key


def _row(
    ticker: str,
    at: datetime,
    horizon: int,
    price: float,
    told: float,
    width: float,
    produced_at: datetime,
    model_id: str,
) -> dict[str, Any]:
    low, middle, high = (price * np.exp(told + shift) for shift in (-width, 0.0, width))
    return {
        "ticker": ticker,
        "as_of": at,
        "horizon_min": horizon,
        "last_price": price,
        "predicted_return": told,
        "predicted_price": middle,
        "price_p10": low,
        "price_p50": middle,
        "price_p90": high,
        "carried_minutes": 0,
        "model_id": model_id,
        "produced_at": produced_at,
    }

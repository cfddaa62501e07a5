"""What both arms of the serving benchmark are given: a day before, its bars, and one minute after another."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final

import numpy as np
import pyarrow as pa

from app import contract
from app.sessions import Session, sessions_between
from app.tables import arrow_schema

WINDOW_MIN: Final = 60
HORIZONS_MIN: Final = (5,)
WARM_MINUTES: Final = 70
"""Of the day before, for the first windows."""


def sessions() -> tuple[Session, Session]:
    """The day before and the day of the ticks."""
    first, second = sessions_between(date(2026, 3, 23), date(2026, 3, 24))
    return first, second


def names(count: int) -> list[str]:
    """Tickers."""
    return [f"T{number:05d}" for number in range(count)]


def minute_bars(tickers: Sequence[str], session: Session, minutes: Sequence[int]) -> pa.Table:
    """Bars (contract.BARS) of these minutes of a session, by ticker: the same for the same minute."""
    parts = []
    for minute in minutes:
        random = np.random.default_rng((session.open_ts, minute))
        open_ = 100 * np.exp(0.01 * random.standard_normal(len(tickers)))
        close = open_ * np.exp(0.001 * random.standard_normal(len(tickers)))
        parts.append(
            pa.table(
                {
                    "ticker": pa.array(tickers, pa.string()),
                    "ts": pa.array(np.full(len(tickers), (session.open_ts + 60 * minute) * 1000), pa.int64()),
                    "open": open_,
                    "high": np.maximum(open_, close) * 1.0005,
                    "low": np.minimum(open_, close) * 0.9995,
                    "close": close,
                    "volume": random.integers(100, 10_000, len(tickers)),
                }
            )
        )
    return pa.concat_tables(parts).cast(arrow_schema(contract.BARS))

"""The state with which a stream starts: each ticker's window, filled from stored bars."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from app import contract
from app.errors import ObjectMissing, TooFewBars
from app.ingest.bars import bar_starts, read_bars
from app.serving.rings import Rings, Ticks
from app.sessions import Session
from app.storage import Bucket

WARM_SESSIONS = 2
"""Sessions before the stream's that are looked at: one fills a window, the other serves a ticker that missed it."""


def write_warm_state(
    run_id: str, market: Bucket, sessions: Sequence[Session], first: Session, tickers: Sequence[str], window: int
) -> Rings:
    """Fill the windows from bars of the sessions before `first` and store them for the workers."""
    before = [session for session in sessions if session.open_ts < first.open_ts][-WARM_SESSIONS:]
    rings = Rings.empty(tickers, window)
    try:
        bars = read_bars(market, before, tickers)
    except TooFewBars:
        bars = None  # nothing stored before this session: the stream starts cold
    if bars is not None:
        rings.apply(ticks_from_table(bars), before)
    market.put(contract.warm_state_key(run_id), rings.to_bytes())
    return rings


@lru_cache(maxsize=2)
def read_warm_state(market_bucket: str, run_id: str, window: int) -> Rings:
    """The stored warm state, read once a process; empty when there is none."""
    try:
        return Rings.from_bytes(Bucket(market_bucket).get(contract.warm_state_key(run_id)), window)
    except ObjectMissing:
        return Rings.empty((), window)


def ticks_from_table(table: pa.Table) -> Ticks:
    """A table of the contract's BARS (or TICKS) as arrays."""
    return Ticks(
        ticker=table["ticker"].to_numpy(zero_copy_only=False),
        ts=bar_starts(table),
        open=table["open"].to_numpy(),
        close=table["close"].to_numpy(),
        volume=table["volume"].to_numpy().astype(np.float64),
    )

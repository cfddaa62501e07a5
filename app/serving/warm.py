"""The state with which a stream starts: each ticker's window, filled from stored bars."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from app import contract
from app.dataset.spec import Spec
from app.errors import ObjectMissing, TooFewBars
from app.ingest.bars import read_bars
from app.serving.ring_blob import pack, unpack
from app.serving.rings import Rings
from app.serving.stream_bucket import stream_bucket
from app.serving.ticks import columns_of, ticks_from_table
from app.sessions import Session
from app.storage import Bucket

WARM_SESSIONS = 2
"""Sessions before the stream's that are looked at: one fills a window, the other serves a ticker that missed it."""


def write_warm_state(
    run_id: str,
    market: Bucket,
    sessions: Sequence[Session],
    first: Session,
    tickers: Sequence[str],
    spec: Spec,
    watermark: int,
) -> Rings:
    """Fill the windows of a model from bars of the sessions before `first`, and store them for the workers.

    tickers: all that the stream will bring, so that the market's return is theirs; watermark: see Rings.
    """
    before = [session for session in sessions if session.open_ts < first.open_ts][-WARM_SESSIONS:]
    rings = Rings.empty(tickers, spec, watermark)
    try:
        bars = read_bars(market, before, tickers)
    except TooFewBars:
        bars = None  # nothing stored before this session: the stream starts cold
    if bars is not None:
        rings.apply(ticks_from_table(columns_of(bars)), before)
    market.put(contract.warm_state_key(run_id), pack(rings))
    return rings


def read_warm_state(market_bucket: str, run_id: str, spec: Spec) -> Rings | None:
    """The stored warm state, fetched once a process; None when there is none."""
    blob = fetch_warm_state(market_bucket, run_id)
    return None if blob is None else unpack(blob, spec)


@lru_cache(maxsize=2)
def fetch_warm_state(market_bucket: str, run_id: str) -> bytes | None:
    """The warm state as it is stored; None when there is none."""
    try:
        return stream_bucket(market_bucket).get(contract.warm_state_key(run_id))
    except ObjectMissing:
        return None

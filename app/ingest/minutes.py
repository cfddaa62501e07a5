"""Minutes of a session that have no bar, as arrays and as text: `0-3,17` are its first four and its eighteenth."""

from __future__ import annotations

import numpy as np

from app import contract
from app.ingest.ticker_bars import Ints, Mask
from app.sessions import Session


def held_minutes(ts: Ints, session: Session) -> Mask:
    """Which of the session's minutes begin a bar: bool (minutes,). ts: bar starts, ascending epoch seconds."""
    held = np.zeros(session.minutes, bool)
    first, end = np.searchsorted(ts, (session.open_ts, session.close_ts))
    held[(ts[first:end] - session.open_ts) // contract.BAR_S] = True
    return held


def missing_text(held: Mask) -> str:
    """The minutes that are not held; empty when all are."""
    edges = np.flatnonzero(np.diff(~held, prepend=False, append=False)).tolist()
    runs = zip(edges[::2], edges[1::2], strict=True)
    return ",".join(str(first) if end - first == 1 else f"{first}-{end - 1}" for first, end in runs)


def held_from_text(missing: str, minutes: int) -> Mask:
    """The inverse of missing_text, for a session of so many minutes."""
    held = np.ones(minutes, bool)
    for run in filter(None, missing.split(",")):
        first, _, last = run.partition("-")
        held[int(first) : int(last or first) + 1] = False
    return held

"""Stored bars cut into the sessions of each ticker, and what is usual in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import pyarrow as pa

from app.contract import BAR_S, SESSION_MINUTES
from app.dataset.features import FloatArray, market_returns
from app.dataset.grid import Bars
from app.dataset.split import Split
from app.dataset.windows import Index
from app.ingest.bars import bar_starts
from app.sessions import Session


def within(bars: pa.Table, sessions: Sequence[Session]) -> pa.Table:
    """Bars that start in one of the sessions."""
    ts = bar_starts(bars)
    inside = np.zeros(len(ts), bool)
    for session in sessions:
        inside |= (ts >= session.open_ts) & (ts < session.close_ts)
    return bars if inside.all() else bars.filter(pa.array(inside))


def cut_sessions(bars: pa.Table, sessions: Sequence[Session]) -> dict[tuple[str, date], Bars]:
    """Bars within the sessions, by ticker and day; each piece is a view."""
    encoded = bars["ticker"].combine_chunks().dictionary_encode()
    names: list[str] = encoded.dictionary.to_pylist()
    code = encoded.indices.to_numpy()
    ts = bar_starts(bars)
    columns = {name: bars[name].to_numpy() for name in ("open", "high", "low", "close")}
    columns["volume"] = bars["volume"].to_numpy().astype(np.float64)
    columns["market_return"] = market_returns(ts, columns["open"], columns["close"])
    pieces: dict[tuple[str, date], Bars] = {}
    for number, name in enumerate(names):
        first, end = np.searchsorted(code, [number, number + 1])
        for session in sessions:
            low, high = first + np.searchsorted(ts[first:end], [session.open_ts, session.close_ts])
            if high > low:
                cut = {field: column[low:high] for field, column in columns.items()}
                pieces[name, session.day] = Bars(ts=ts[low:high], **cut)
    return pieces


def volume_profile(pieces: Mapping[tuple[str, date], Bars], train: Split) -> FloatArray:
    """The usual log volume of each minute of a session less its ticker's mean, over all tickers' training bars.

    float64 (minutes of a full session,); 0 where there is no trusted bar.
    """
    total, count = np.zeros(SESSION_MINUTES), np.zeros(SESSION_MINUTES)
    held: dict[str, list[tuple[Index, FloatArray]]] = {}
    for (ticker, day), bars in pieces.items():
        for session in train.sessions:
            if session.day == day:
                number = (bars.ts - session.open_ts) // BAR_S
                usable = (number < train.minutes_of(session)) & ~np.isnan(bars.volume)
                held.setdefault(ticker, []).append((number[usable], np.log1p(bars.volume[usable])))
    for parts in held.values():
        number, volume = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        if len(volume):
            total += np.bincount(number, volume - volume.mean(), SESSION_MINUTES)
            count += np.bincount(number, minlength=SESSION_MINUTES)
    return np.divide(total, count, out=np.zeros(SESSION_MINUTES), where=count > 0)

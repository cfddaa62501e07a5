"""Stored bars: how they are read, merged and indexed by time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from app import contract
from app.errors import ObjectMissing, TooFewBars
from app.ingest.ticker_bars import TickerBars, latest
from app.sessions import Session
from app.storage import Bucket, ObjectInfo
from app.tables import arrow_schema, get_table

T = TypeVar("T")

_LOOKS = 3
_VALUES = ("open", "high", "low", "close", "volume")


def empty_bars() -> pa.Table:
    """No bars, in the contract's schema."""
    return arrow_schema(contract.BARS).empty_table()


def bar_starts(table: pa.Table) -> npt.NDArray[np.int64]:
    """Column ts (timestamps in milliseconds) as epoch seconds, int64 (rows,)."""
    seconds: npt.NDArray[np.int64] = table["ts"].cast(pa.int64()).to_numpy() // 1000
    return seconds


def to_table(bars: Mapping[str, TickerBars]) -> pa.Table:
    """Bars of tickers as one table in the contract's schema, ordered by ticker and ts."""
    schema = arrow_schema(contract.BARS)
    tickers = [ticker for ticker in sorted(bars) if len(bars[ticker])]
    if not tickers:
        return empty_bars()
    lengths = [len(bars[ticker]) for ticker in tickers]
    ts = np.concatenate([bars[ticker].ts for ticker in tickers]) * 1000
    columns = {
        "ticker": pa.array(tickers).take(pa.array(np.repeat(np.arange(len(tickers)), lengths))),
        "ts": pa.array(ts).cast(schema.field("ts").type),
        **{name: np.concatenate([getattr(bars[ticker], name) for ticker in tickers]) for name in _VALUES},
    }
    return pa.table(columns, schema=schema)


def bars_of(table: pa.Table) -> dict[str, TickerBars]:
    """The inverse of to_table; the rows of each ticker must stand together."""
    ticker = table["ticker"].to_numpy(zero_copy_only=False)
    edges = [0, *(np.flatnonzero(ticker[1:] != ticker[:-1]) + 1).tolist(), len(ticker)]
    columns = [bar_starts(table), *(table[name].to_numpy() for name in _VALUES)]
    bars = TickerBars(*columns)
    return {str(ticker[first]): bars.part(slice(first, end)) for first, end in pairwise(edges) if end > first}


def latest_bars(tables: Iterable[pa.Table]) -> pa.Table:
    """One copy of each (ticker, ts), from the last table that holds it; ordered by ticker and ts.

    In each table the rows of a ticker must stand together.
    """
    parts: dict[str, list[TickerBars]] = defaultdict(list)
    for table in tables:
        for ticker, bars in bars_of(table).items():
            parts[ticker].append(bars)
    return to_table({ticker: latest(found) for ticker, found in parts.items()})


def read_bars(market: Bucket, sessions: Iterable[Session], tickers: Sequence[str]) -> pa.Table:
    """Stored bars of these sessions and tickers, one copy of each, ordered by (ticker, ts).

    Where two objects hold the same bar, the one written last wins. Raises TooFewBars when there is none.
    """
    wanted = pa.array(sorted(tickers))
    tables = []
    for session in sessions:
        for table in read_parts(market, session):
            tables.append(table.filter(pc.is_in(table["ticker"], value_set=wanted)))
    if not any(len(table) for table in tables):
        raise TooFewBars(f"no bars under s3://{market.name}/{contract.BARS_PREFIX}: run `stockflow ingest` first")
    return latest_bars(tables)


def read_parts(market: Bucket, session: Session) -> list[pa.Table]:
    """All parts of one session's bars, the one written last at the end."""

    def read() -> list[pa.Table]:
        found = sorted(market.objects(contract.bars_day_prefix(session.day)), key=part_order)
        return [get_bars(market, info.key) for info in found]

    return again_if_gone(read)


def again_if_gone(work: Callable[[], T]) -> T:
    """What reads the parts of a day; a few times over, since parts can be merged and deleted while they are read."""
    for _ in range(_LOOKS - 1):
        with suppress(ObjectMissing):
            return work()
    return work()


def part_order(info: ObjectInfo) -> tuple[datetime, bool]:
    """Sorts parts by when they were written; S3 tells whole seconds, and a merged part is written after its own."""
    return info.modified, contract.is_compact(contract.part_of(info.key))


def get_bars(market: Bucket, key: str) -> pa.Table:
    """One stored part, in the contract's schema."""
    schema = arrow_schema(contract.BARS)
    return get_table(market, key).select(schema.names).cast(schema)

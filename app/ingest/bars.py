"""Stored bars: how they are read, merged and indexed by time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from app import contract
from app.errors import TooFewBars
from app.sessions import Session
from app.storage import Bucket
from app.tables import arrow_schema, get_table


def empty_bars() -> pa.Table:
    """No bars, in the contract's schema."""
    return arrow_schema(contract.BARS).empty_table()


def bar_starts(table: pa.Table) -> npt.NDArray[np.int64]:
    """Column ts (timestamps in milliseconds) as epoch seconds, int64 (rows,)."""
    seconds: npt.NDArray[np.int64] = table["ts"].cast(pa.int64()).to_numpy() // 1000
    return seconds


def latest_bars(tables: Sequence[pa.Table]) -> pa.Table:
    """One copy of each (ticker, ts), from the last table that holds it; ordered by ticker and ts."""
    table = pa.concat_tables(tables)
    table = table.append_column("order", pa.array(np.arange(len(table))))
    last = table.group_by(["ticker", "ts"], use_threads=False).aggregate([("order", "max")])["order_max"]
    return table.take(last).sort_by([("ticker", "ascending"), ("ts", "ascending")]).drop_columns(["order"])


def read_bars(market: Bucket, sessions: Iterable[Session], tickers: Sequence[str]) -> pa.Table:
    """Stored bars of these sessions and tickers, one copy of each, ordered by (ticker, ts).

    Where two objects hold the same bar, the one written last wins. Raises TooFewBars when there is none.
    """
    wanted = pa.array(sorted(tickers))
    schema = arrow_schema(contract.BARS)
    found = [info for session in sessions for info in market.objects(contract.bars_day_prefix(session.day))]
    tables = []
    for info in sorted(found, key=lambda info: (info.modified, info.key)):
        table = get_table(market, info.key).select(schema.names).cast(schema)
        tables.append(table.filter(pc.is_in(table["ticker"], value_set=wanted)))
    if not any(len(table) for table in tables):
        raise TooFewBars(f"no bars under s3://{market.name}/{contract.BARS_PREFIX}: run `stockflow ingest` first")
    return latest_bars(tables)

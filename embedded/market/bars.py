"""A market in memory: the bars of each ticker, and how to read them from a Parquet file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app import contract
from app.errors import BadBars, UniverseError
from app.ingest.ticker_bars import Floats, Ints, Mask, TickerBars
from app.ingest.universe import yahoo_symbol

_PRICES = ("open", "high", "low", "close")
_UNITS_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
# Bars come as float32 from some sources: one rounding may push a close over its high.
_RELATIVE_TOLERANCE = 1e-6
_LATEST_S = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp())
_NEW_YORK = ZoneInfo(contract.EXCHANGE_TIMEZONE)


@dataclass(frozen=True, eq=False)
class Market:
    """The bars of a set of tickers; at least one bar in all."""

    bars: Mapping[str, TickerBars]

    @cached_property
    def tickers(self) -> tuple[str, ...]:
        """All tickers, sorted."""
        return tuple(sorted(self.bars))

    @cached_property
    def days(self) -> tuple[date, ...]:
        """New York dates that have bars, sorted."""
        # New York is a whole number of hours from UTC: a date per hour is enough, and there are few hours.
        hours = np.unique(np.concatenate([np.unique(bars.ts // 3600) for bars in self.bars.values()]))
        return tuple(sorted({datetime.fromtimestamp(int(hour) * 3600, _NEW_YORK).date() for hour in hours}))

    @cached_property
    def end(self) -> datetime:
        """One minute after the start of the newest bar, aware, in UTC."""
        newest = max(int(bars.ts[-1]) for bars in self.bars.values() if len(bars))
        return datetime.fromtimestamp(newest + contract.BAR_S, UTC)


class _Rows(NamedTuple):
    """The columns of a file, one entry a row."""

    path: Path
    names: list[str]  # the tickers, sorted
    code: Ints  # index into names
    ts_units: Ints  # in units of the file
    unit: str
    prices: dict[str, Floats]
    volume: Ints

    @property
    def units_per_s(self) -> int:
        return _UNITS_PER_S[self.unit]

    def refuse(self, offenders: Mask, problem: str) -> None:
        """Raise BadBars with the number of offenders and the first of them, if there are any."""
        if offenders.any():
            row = int(np.argmax(offenders))
            # Unlike datetime, numpy holds any year.
            when = self.ts_units[row : row + 1].astype(f"datetime64[{self.unit}]")[0]
            raise BadBars(
                f"{self.path}: {problem} in {np.count_nonzero(offenders)} of {len(offenders)} rows, "
                f"first {self.names[self.code[row]]} at {when}Z"
            )


def read_bars_file(path: Path | str) -> Market:
    """Read a Parquet file with the columns of `contract.BARS`, in any order, others ignored.

    `ticker` may be dictionary-encoded and is put into Yahoo's spelling (BRK.B becomes BRK-B); `ts` may have
    any unit but must name a time zone; rows are sorted by (ticker, ts). Raises BadBars with one line that
    names the file, the problem, how many rows have it and the first of them.
    """
    path = Path(path)
    rows = _rows(_table(path), path)
    _check_prices(rows)
    seconds = rows.ts_units // rows.units_per_s
    # Nanoseconds labelled as milliseconds land in the year 50,000,000.
    rows.refuse((seconds < 0) | (seconds > _LATEST_S), "ts is not within 1970..2200")
    rows.refuse(rows.volume < 0, "volume is negative")
    rows.refuse(rows.ts_units % (contract.BAR_S * rows.units_per_s) != 0, "ts is not on a whole minute")
    _check_order(rows)
    bounds = np.searchsorted(rows.code, np.arange(len(rows.names) + 1))
    every = TickerBars(ts=seconds, volume=rows.volume, **rows.prices)
    return Market(
        {symbol: every.part(slice(int(bounds[i]), int(bounds[i + 1]))) for i, symbol in enumerate(_symbols(rows))},
    )


def _symbols(rows: _Rows) -> list[str]:
    """Yahoo's spelling of each name; BadBars for what is no ticker and for two spellings of one."""
    named: dict[str, str] = {}
    for name in rows.names:
        try:
            symbol = yahoo_symbol(name)
        except UniverseError as exc:
            raise BadBars(f"{rows.path}: {exc}") from exc
        if symbol in named:
            raise BadBars(f"{rows.path}: {named[symbol]} and {name} are the same ticker, {symbol} in Yahoo's spelling")
        named[symbol] = name
    return list(named)


def _table(path: Path) -> Any:
    wanted = [column.name for column in contract.BARS]
    try:
        present = pq.read_schema(path).names
        missing = [name for name in wanted if name not in present]
        if missing:
            raise BadBars(f"{path}: lacks {len(missing)} of {len(wanted)} columns, first {missing[0]}: has {present}")
        # Without partitioning: a folder of the path such as dt=2026-03-24 would become a column.
        table = pq.read_table(path, columns=wanted, partitioning=None, use_threads=False)  # see app.storage
    except FileNotFoundError as exc:
        raise BadBars(f"{path}: there is no such file") from exc
    except (OSError, pa.ArrowException) as exc:
        raise BadBars(f"{path}: is not a readable Parquet file ({str(exc).splitlines()[0]})") from exc
    if table.num_rows == 0:
        raise BadBars(f"{path}: has no rows")
    return table


def _rows(table: Any, path: Path) -> _Rows:
    kind = table.schema.field("ts").type
    if not pa.types.is_timestamp(kind):
        raise BadBars(f"{path}: ts has type {kind}: a timestamp with a time zone is needed")
    if kind.tz is None:
        raise BadBars(f"{path}: ts names no time zone: write it as {contract.BARS[1].arrow_type}")
    for name in ("ticker", "ts"):
        if nulls := table[name].null_count:
            row = table[name].is_null().index(True).as_py()
            raise BadBars(f"{path}: {name} is null in {nulls} of {table.num_rows} rows, first row {row}")
    tickers = _cast(table, "ticker", pa.string(), path).dictionary_encode().combine_chunks()
    unsorted_names = tickers.dictionary.to_pylist()
    names = sorted(unsorted_names)
    rank = np.empty(len(names), np.int64)
    rank[[unsorted_names.index(name) for name in names]] = np.arange(len(names))
    rows = _Rows(
        path=path,
        names=names,
        code=rank[tickers.indices.to_numpy(zero_copy_only=False)],
        ts_units=table["ts"].cast(pa.int64()).to_numpy(),
        unit=kind.unit,
        prices={name: _cast(table, name, pa.float64(), path).to_numpy() for name in _PRICES},
        volume=np.empty(0, np.int64),
    )
    rows.refuse(np.asarray(table["volume"].is_null().to_numpy(), bool), "volume is null")
    return rows._replace(volume=_cast(table, "volume", pa.int64(), path).to_numpy())


def _cast(table: Any, name: str, kind: Any, path: Path) -> Any:
    try:
        return table[name].cast(kind)
    except pa.ArrowException as exc:
        raise BadBars(
            f"{path}: {name} has type {table.schema.field(name).type} and does not fit {kind}: {exc}"
        ) from exc


def _check_prices(rows: _Rows) -> None:
    for name, price in rows.prices.items():
        rows.refuse(~np.isfinite(price), f"{name} is null, NaN or infinite")
        rows.refuse(price <= 0, f"{name} is not positive")
    high, low = rows.prices["high"], rows.prices["low"]
    slack = high * _RELATIVE_TOLERANCE
    rows.refuse(high < low - slack, "high is below low")
    for name in ("open", "close"):
        price = rows.prices[name]
        rows.refuse((price < low - slack) | (price > high + slack), f"{name} is outside low..high")


def _check_order(rows: _Rows) -> None:
    """Raise BadBars unless (ticker, ts) ascends strictly; a duplicate is named before a wrong order."""
    step = np.diff(rows.code)
    later = (step > 0) | ((step == 0) & (np.diff(rows.ts_units) > 0))
    if later.all():
        return
    # A stable sort leaves the first of equal rows in front, so that the repeats are the offenders.
    order = np.lexsort((rows.ts_units, rows.code))
    repeat = (np.diff(rows.code[order]) == 0) & (np.diff(rows.ts_units[order]) == 0)
    repeated = np.zeros(len(order), bool)
    repeated[order[1:][repeat]] = True
    rows.refuse(repeated, "(ticker, ts) is a duplicate")
    rows.refuse(np.concatenate([[False], ~later]), "(ticker, ts) is not in ascending order")

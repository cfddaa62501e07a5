"""Which predictions are meant: from when to when, of which tickers, horizons and run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from app import contract
from app.errors import SettingsError
from app.sessions import market_day

_CLASS = re.compile(r"\.(?=[A-Z]$)")
Instant = date | datetime | str
"""A New York session, or an instant: ISO text of either is taken too. An instant without a time zone is in UTC."""


@dataclass(frozen=True)
class Period:
    """first, last: sessions, both included; since_ms, until_ms: of as_of, both included, None where a session is."""

    first: date
    last: date
    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def sessions(self) -> Period:
        """All of the sessions that it touches."""
        return Period(self.first, self.last)

    def rows(self, table: pa.Table) -> pa.Table:
        """Those of a table whose as_of lies in it, where it begins or ends within a session."""
        at = table["as_of"].cast(pa.int64())
        if self.since_ms is not None:
            table, at = _both(table, at, pc.greater_equal(at, self.since_ms))
        return table if self.until_ms is None else table.filter(pc.less_equal(at, self.until_ms))


def period(start: Instant, end: Instant) -> Period:
    """From `start` to `end`, both included; SettingsError when they are no times, or end before they start."""
    (first, since_ms), (last, until_ms) = _bound("start", start), _bound("end", end)
    backwards = since_ms is not None and until_ms is not None and since_ms > until_ms
    if first > last or backwards:
        raise SettingsError(f"start={start} lies after end={end}: exchange them")
    return Period(first, last, since_ms, until_ms)


@dataclass(frozen=True)
class Selection:
    """tickers, horizons_min: None is all; run_id: None is of whatever run, what was produced last counts."""

    tickers: tuple[str, ...] | None = None
    horizons_min: tuple[int, ...] | None = None
    run_id: str | None = None

    def rows(self, table: pa.Table) -> pa.Table:
        """Those of a table whose ticker and horizon are meant."""
        for name, values in (("ticker", self.tickers), ("horizon_min", self.horizons_min)):
            if values is not None:
                table = table.filter(pc.is_in(table[name], pa.array(values, table.schema.field(name).type)))
        return table

    def has(self, key: str) -> bool:
        """Whether an object may hold some of them."""
        return key.endswith(".parquet") and self.run_id in (None, contract.predictions_run(key))


def selection(
    tickers: str | Iterable[str] | None = None,
    horizons_min: int | Iterable[int] | None = None,
    run_id: str | None = None,
) -> Selection:
    """What a consumer asked for; BRK.B and brk-b are BRK-B, as Yahoo spells it."""
    named = (tickers,) if isinstance(tickers, str) else tickers
    horizons = horizons_min if isinstance(horizons_min, Iterable | None) else (horizons_min,)
    return Selection(
        None if named is None else tuple(_CLASS.sub("-", ticker.strip().upper()) for ticker in named),
        None if horizons is None else tuple(int(horizon) for horizon in horizons),
        run_id,
    )


def columns_of(columns: str | Iterable[str] | None, allowed: Sequence[str]) -> list[str]:
    """The columns asked for, in that order, by default all; SettingsError for one that there is not."""
    asked = list(allowed if columns is None else [columns] if isinstance(columns, str) else columns)
    if unknown := [name for name in asked if name not in allowed]:
        raise SettingsError(f"there is no column {', '.join(map(repr, unknown))}: there are {', '.join(allowed)}")
    return asked


def _bound(name: str, given: Instant) -> tuple[date, int | None]:
    """The session of a start or an end, and its instant in epoch milliseconds where it is one."""
    when = _parsed(name, given) if isinstance(given, str) else given
    if isinstance(when, datetime):
        aware = when if when.tzinfo else when.replace(tzinfo=UTC)
        return market_day(aware), round(aware.timestamp() * 1000)
    if not isinstance(when, date):
        raise SettingsError(f"{name}={given!r} is no date, datetime or ISO text such as 2026-03-24")
    return when, None


def _parsed(name: str, text: str) -> date | datetime:
    for kind in (date, datetime):
        try:
            return kind.fromisoformat(text)
        except ValueError:
            continue
    raise SettingsError(f"{name}={text!r} is no session such as 2026-03-24, nor an instant such as 2026-03-24T15:30Z")


def _both(table: pa.Table, column: pa.ChunkedArray, mask: pa.ChunkedArray) -> tuple[pa.Table, pa.ChunkedArray]:
    return table.filter(mask), column.filter(mask)

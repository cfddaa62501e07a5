"""Yahoo's chart answers made by hand, and a plain reading of them: json.loads and loops, nothing of the ingest.

What the ingest makes of an answer is compared with `rows_in` and `bars_among`.
"""

from __future__ import annotations

import json
import math
import random
import re
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from app.ingest.chart import RawBars
from app.ingest.ticker_bars import TickerBars
from app.sessions import Session

TICKER = "AAPL"
COLUMNS = ("open", "high", "low", "close", "volume")


class Row(NamedTuple):
    """One row of an answer; ts in epoch seconds, None for null."""

    ts: int
    open: float | None
    high: float | None
    low: float | None
    close: float | None
    volume: float | None


def good_rows(*sessions: Session, seed: int = 0) -> list[Row]:
    """A bar for every minute of the sessions: a walk in cents around 100 that never stands still."""
    draw = random.Random(seed)
    rows, cents = [], 10_000
    for session in sessions:
        for minute in range(session.minutes):
            before, cents = cents, max(9_000, min(11_000, cents + draw.choice((-3, -2, -1, 1, 2, 3))))
            high, low = max(before, cents) + draw.randrange(3), min(before, cents) - draw.randrange(3)
            prices = (before / 100, high / 100, low / 100, cents / 100)
            rows.append(Row(session.open_ts + 60 * minute, *prices, float(draw.randrange(1, 1000))))
    return rows


def raw_of(rows: Sequence[Row]) -> RawBars:
    """The rows as the parser hands them on."""
    ts = np.array([row.ts for row in rows], np.int64)
    return RawBars(ts, *(np.array([row[i] for row in rows], np.float64) for i in range(1, 6)))


def rows_of(columns: RawBars | TickerBars) -> list[Row]:
    """The inverse of raw_of."""
    values = [getattr(columns, name).tolist() for name in COLUMNS]
    nulled = ([None if math.isnan(value) else float(value) for value in column] for column in values)
    return [Row(*row) for row in zip(columns.ts.tolist(), *nulled, strict=True)]


# --- bodies ---------------------------------------------------------------------------------------


def document(rows: Sequence[Row], symbol: str = TICKER) -> dict[str, Any]:
    """Yahoo's answer with these rows, before it is text; without any it has the meta data alone."""
    period = {"timezone": "EST", "gmtoffset": -18000, "start": 1764599400, "end": 1764601200}
    meta = {
        "currency": "USD",
        "symbol": symbol,
        "firstTradeDate": None,
        "longName": 'Of "quotes", \\ and \u20ac',
        "regularMarketPrice": 100.25,
        "hasPrePostMarketData": True,
        "currentTradingPeriod": {"pre": period, "regular": period, "post": period},
        "tradingPeriods": [[period], [period]],
        "dataGranularity": "1m",
        "validRanges": ["1d", "5d"],
    }
    result: dict[str, Any] = {"meta": meta, "indicators": {"quote": [{}]}}
    if rows:
        result["timestamp"] = [row.ts for row in rows]
        result["indicators"]["quote"] = [{name: [getattr(row, name) for row in rows] for name in COLUMNS}]
    return {"chart": {"result": [result], "error": None}}


def body(rows: Sequence[Row], symbol: str = TICKER) -> bytes:
    """Yahoo's answer with these rows."""
    return json.dumps(document(rows, symbol)).encode()


def refusal_body(code: str, description: str | None = None, root: str = "chart") -> bytes:
    """Yahoo's answer that is no chart."""
    return json.dumps({root: {"result": None, "error": {"code": code, "description": description}}}).encode()


# --- a plain reading ------------------------------------------------------------------------------


_HALF_A_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


class _NoChart(Exception):
    pass


def rows_in(answer: bytes, ticker: str = TICKER) -> list[Row] | None:
    """The rows of a chart of `ticker` with 1-minute bars, None when the answer is anything else."""
    try:
        return _rows(json.loads(_text(answer), parse_int=_integer, parse_constant=_refuse), ticker)
    except (_NoChart, KeyError, ValueError, OverflowError, RecursionError):
        return None


def is_disputable(answer: bytes) -> bool:
    """Whether readers of JSON may differ: an object has two values of one name, or a text half a character."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise _NoChart
        return dict(pairs)

    try:
        json.loads(_text(answer), parse_int=_integer, object_pairs_hook=once)
    except _NoChart:
        return True
    return _HALF_A_CHARACTER.search(answer) is not None


def _text(answer: bytes) -> str:
    return answer.decode("utf-8", "surrogateescape")


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 400 else math.inf


def _refuse(literal: str) -> None:
    raise _NoChart(f"{literal} is not JSON")


def _rows(answer: Any, ticker: str) -> list[Row]:
    chart = _an_object(_an_object(answer)["chart"])
    if chart.get("error") is not None:
        raise _NoChart
    result = _an_object(_only(chart.get("result")))
    meta = _an_object(result["meta"])
    if str(meta["symbol"]).upper() != ticker or meta.get("dataGranularity", "1m") != "1m":
        raise _NoChart
    quote = _an_object(_only(_an_object(result["indicators"])["quote"]))
    times = [_time(value) for value in _a_list(result.get("timestamp", []))]
    columns = [[_number(value) for value in _a_list(quote.get(name, []))] for name in COLUMNS]
    return [Row(*row) for row in zip(times, *columns, strict=True)]


def _an_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _NoChart
    return value


def _a_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _NoChart
    return value


def _only(value: Any) -> Any:
    (only,) = _a_list(value)
    return only


def _time(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise _NoChart
    return value


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value):
        raise _NoChart
    return float(value)


# --- the rules ------------------------------------------------------------------------------------


def bars_among(rows: Sequence[Row], sessions: Sequence[Session], now_ts: float) -> list[Row]:
    """The rows that are bars, ascending; without a volume it is 0."""
    copies: dict[int, list[Row]] = {}
    for row in rows:
        in_session = any(session.open_ts <= row.ts < session.close_ts for session in sessions)
        if in_session and row.ts % 60 == 0 and row.ts + 60 <= now_ts and None not in row[1:5]:
            copies.setdefault(row.ts, []).append(row)
    agreed = [same[0] for _, same in sorted(copies.items()) if all(row == same[0] for row in same)]
    bars = [row._replace(volume=row.volume or 0.0) for row in agreed if _may_be_a_bar(row)]
    bars = [bar for session in sessions for bar in _without_absurd(_of(bars, session))]
    carried = set(_carried_forward(bars, sessions))
    return [bar for bar in bars if bar not in carried]


def _prices(row: Row) -> tuple[float, float, float, float]:
    numbers = [price if price is not None else math.nan for price in row[1:5]]
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _may_be_a_bar(row: Row) -> bool:
    prices, volume = _prices(row), row.volume or 0.0
    first, high, low, last = prices
    return (
        all(0 < price < math.inf for price in prices)
        and high >= max(first, last) * (1 - 1e-6)
        and low <= min(first, last) * (1 + 1e-6)
        and 0 <= volume <= 2**53
        and volume == int(volume)
    )


def _of(bars: Sequence[Row], session: Session) -> list[Row]:
    return [bar for bar in bars if session.open_ts <= bar.ts < session.close_ts]


def _without_absurd(bars: Sequence[Row]) -> Sequence[Row]:
    """One session's bars, less the absurd ones until none is left."""
    believed = [bar for i, bar in enumerate(bars) if not _absurd(bar, bars[max(0, i - 5) : i], bars[i + 1 : i + 6])]
    return bars if len(believed) == len(bars) else _without_absurd(believed)


def _absurd(bar: Row, before: Sequence[Row], after: Sequence[Row]) -> bool:
    """Whether a price is 1.5 times the close that is usual before and the one that is after, or 1.5th of both."""
    usual = [statistics.median(_prices(other)[3] for other in side) for side in (before, after) if side]
    first, high, low, _ = _prices(bar)
    too_high = all(max(first, high) > 1.5 * price for price in usual)
    too_low = all(min(first, low) < price / 1.5 for price in usual)
    return bool(usual) and (too_high or too_low)


def _carried_forward(bars: Sequence[Row], sessions: Sequence[Session]) -> Iterator[Row]:
    """Ten bars or more in a row of one session without volume, all of whose prices are the close before them."""
    for session in sessions:
        silent: list[Row] = []
        for bar in [*_of(bars, session), None]:
            if bar is not None and bar.volume == 0:
                silent.append(bar)
                continue
            if len(silent) >= 10:
                yield from _unmoved(silent, bars)
            silent = []


def _unmoved(silent: Sequence[Row], bars: Sequence[Row]) -> Iterator[Row]:
    run: list[Row] = []
    for bar in [*silent, None]:
        if bar is not None:
            at = bars.index(bar)
            before = bars[at - 1].close if at else bar.open
            if all(price == before for price in _prices(bar)):
                run.append(bar)
                continue
        if len(run) >= 10:
            yield from run
        run = []

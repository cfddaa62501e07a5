"""Yahoo's chart answers, built from bars: pure functions.

The form is what yfinance 1.7.0 reads (`scrapers/history.py`, `utils.py`): 1-minute bars by `period1` and
`period2` or by `range`, and daily bars, of which yfinance needs `range=1d` to learn a ticker's time zone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app import contract
from app.ingest.ticker_bars import Floats, Ints, TickerBars
from app.sessions import Session
from embedded.yahoo.query import PRE_MARKET_S, VALID_RANGES, ChartError, ChartQuery

POST_MARKET_S: Final = 14_400
"""After-hours trading lasts four hours."""

_NEW_YORK = ZoneInfo(contract.EXCHANGE_TIMEZONE)


def chart_body(
    symbol: str,
    bars: TickerBars | None,
    query: ChartQuery,
    sessions: Sequence[Session],
    now: datetime,
    *,
    kept_share: float = 1.0,
) -> bytes:
    """The JSON that answers `query` at the instant `now`.

    bars: all of the ticker's bars, None when Yahoo does not know it. sessions: all sessions of the market and
    of the days up to `now`, ascending. Shows whole minutes that ended by `now`; a range without any has the
    meta data alone. kept_share: the share of the bars that is shown, from the first on; less than 1 is a fault.
    Raises ChartError: 404 for an unknown symbol, 422 for 1-minute ranges that Yahoo refuses.
    """
    if bars is None:
        raise ChartError(404, "Not Found", "No data found, symbol may be delisted")
    now_s = int(now.timestamp())
    known = bars.between(0, now_s - contract.BAR_S + 1)
    begun = [session for session in sessions if session.open_ts <= now_s]
    start_s, end_s = query.bounds_s(begun, now_s)
    reach = PRE_MARKET_S if query.pre_post else 0
    inside = [s for s in begun if s.open_ts - reach < end_s and s.close_ts > start_s]
    shown = _regular(known.between(start_s, end_s), inside, query.pre_post)
    if query.interval == "1d":
        shown = _daily(shown, inside)
    shown = shown.part(slice(0, int(np.ceil(len(shown) * kept_share))))
    meta = _meta(symbol, known, query, begun or list(sessions[:1]))
    if query.interval == "1m":
        meta["tradingPeriods"] = _trading_periods(inside, query.pre_post)
    return _document(meta, shown, adjusted=query.interval == "1d")


def _regular(bars: TickerBars, sessions: Sequence[Session], pre_post: bool) -> TickerBars:
    """The bars inside the sessions, or with the hours before and after them."""
    inside = np.zeros(len(bars), bool)
    for session in sessions:
        start_s = session.open_ts - PRE_MARKET_S * pre_post
        first, last = np.searchsorted(bars.ts, (start_s, session.close_ts + POST_MARKET_S * pre_post))
        inside[first:last] = True
    return bars.part(inside)


def _daily(bars: TickerBars, sessions: Sequence[Session]) -> TickerBars:
    """One bar a session that has any, stamped with the session's open."""
    days = [(session.open_ts, bars.between(session.open_ts, session.close_ts)) for session in sessions]
    days = [(open_s, day) for open_s, day in days if len(day)]
    return TickerBars(
        ts=np.array([open_s for open_s, _ in days], np.int64),
        open=np.array([day.open[0] for _, day in days], np.float64),
        high=np.array([day.high.max() for _, day in days], np.float64),
        low=np.array([day.low.min() for _, day in days], np.float64),
        close=np.array([day.close[-1] for _, day in days], np.float64),
        volume=np.array([day.volume.sum() for _, day in days], np.int64),
    )


def _meta(symbol: str, known: TickerBars, query: ChartQuery, begun: Sequence[Session]) -> dict[str, Any]:
    """Yahoo's description of the ticker; `begun` are the sessions so far, never empty."""
    current = begun[-1]
    pre_s, post_s = current.open_ts - PRE_MARKET_S, current.close_ts + POST_MARKET_S
    newest_s = int(known.ts[-1]) + contract.BAR_S if len(known) else current.open_ts
    price = float(known.close[-1]) if len(known) else None
    today = known.between(current.open_ts, current.close_ts)
    return {
        "currency": "USD",
        "symbol": symbol,
        "exchangeName": "NYQ",
        "fullExchangeName": "NYSE",
        "instrumentType": "EQUITY",
        "firstTradeDate": int(known.ts[0]) if len(known) else None,
        "regularMarketTime": newest_s,
        "hasPrePostMarketData": True,
        **_zone(newest_s),
        "exchangeTimezoneName": contract.EXCHANGE_TIMEZONE,
        "regularMarketPrice": price,
        "regularMarketDayHigh": float(today.high.max()) if len(today) else price,
        "regularMarketDayLow": float(today.low.min()) if len(today) else price,
        "regularMarketVolume": int(today.volume.sum()),
        "longName": symbol,
        "shortName": symbol,
        "priceHint": 2,
        "currentTradingPeriod": {
            "pre": _period(pre_s, current.open_ts),
            "regular": _period(current.open_ts, current.close_ts),
            "post": _period(current.close_ts, post_s),
        },
        "dataGranularity": query.interval,
        "range": query.range,
        "validRanges": list(VALID_RANGES),
    }


def _trading_periods(sessions: Sequence[Session], pre_post: bool) -> Any:
    """One list a session of one period; by part of the day when the hours around it were asked for."""
    regular = [[_period(s.open_ts, s.close_ts)] for s in sessions]
    if not pre_post:
        return regular
    return {
        "pre": [[_period(s.open_ts - PRE_MARKET_S, s.open_ts)] for s in sessions],
        "post": [[_period(s.close_ts, s.close_ts + POST_MARKET_S)] for s in sessions],
        "regular": regular,
    }


def _period(start_s: int, end_s: int) -> dict[str, Any]:
    return {**_zone(start_s), "start": start_s, "end": end_s}


def _zone(instant_s: int) -> dict[str, Any]:
    """New York's abbreviation and its offset from UTC in seconds at an instant: both change with the season."""
    local = datetime.fromtimestamp(instant_s, UTC).astimezone(_NEW_YORK)
    offset = local.utcoffset()
    return {"timezone": local.tzname(), "gmtoffset": int(offset.total_seconds()) if offset is not None else 0}


def _document(meta: Mapping[str, Any], bars: TickerBars, adjusted: bool) -> bytes:
    if len(bars) == 0:
        empty: dict[str, Any] = {"quote": [{}], "adjclose": [{}]} if adjusted else {"quote": [{}]}
        return json.dumps({"chart": {"result": [{"meta": meta, "indicators": empty}], "error": None}}).encode()
    columns: dict[str, Floats | Ints] = {
        "volume": bars.volume,
        "open": bars.open,
        "close": bars.close,
        "low": bars.low,
        "high": bars.high,
    }
    quote = ",".join(f'"{name}":{_numbers(values)}' for name, values in columns.items())
    adjclose = f',"adjclose":[{{"adjclose":{_numbers(bars.close)}}}]' if adjusted else ""
    return (
        f'{{"chart":{{"result":[{{"meta":{json.dumps(meta)},"timestamp":{_numbers(bars.ts)},'
        f'"indicators":{{"quote":[{{{quote}}}]{adjclose}}}}}],"error":null}}}}'
    ).encode()


def _numbers(values: Floats | Ints) -> str:
    """A JSON array. Arrow writes the shortest text that reads back the same, three times as fast as `json`."""
    texts = pa.array(values).cast(pa.string())
    return f"[{pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts), ',')[0].as_py()}]"

"""One ticker's bars through unmodified yfinance, over a transport that answers from a script."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yfinance
from curl_cffi import requests
from curl_cffi.requests.exceptions import Timeout
from yfinance.cache import get_tz_cache
from yfinance.data import SingletonMeta, YfData

from app import contract
from app.errors import YahooError
from app.ingest.fetch import FetchCount, Fetcher, UnknownTicker, bars_from_frame, configure_yfinance
from app.ingest.plan import Span
from app.ingest.yahoo_session import YahooSession
from app.settings import IngestSettings
from app.tables import arrow_schema
from tests.fakes import FakeTime, make_sessions

(SESSION,) = make_sessions(5)
SPAN = Span(SESSION.open_ts, SESSION.close_ts)
AT = [SESSION.open_ts, SESSION.open_ts + 60, SESSION.open_ts + 240]


@dataclass(frozen=True)
class Answer:
    """What the chart endpoint says once."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class Transport(requests.Session[requests.Response]):
    """Where requests end: chart answers come from a script, an exception in it is raised."""

    script: deque[Answer | Exception]

    def request(self, method: Any, url: str, *args: Any, **options: Any) -> requests.Response:
        """The next answer; a cookie and a crumb are always granted."""
        answer = self.script.popleft() if "/v8/finance/chart/" in url else Answer(body="crumb")
        if isinstance(answer, Exception):
            raise answer
        response = requests.Response()
        response.url, response.status_code, response.content = url, answer.status, answer.body.encode()
        response.headers.update(answer.headers)
        return response


class ScriptedYahoo(YahooSession, Transport):
    """The session of the ingest, on the scripted transport."""

    def __init__(self, *script: Answer | Exception) -> None:
        super().__init__()
        self.script = deque(script)


def chart(ts: list[int], closes: list[float | None], symbol: str = "AAPL") -> Answer:
    """Yahoo's answer with these bars: each one cent around its close."""
    quote: dict[str, list[Any]] = {"close": closes, "open": closes, "volume": [10 * (i + 1) for i in range(len(ts))]}
    quote["high"] = [None if c is None else c + 0.01 for c in closes]
    quote["low"] = [None if c is None else c - 0.01 for c in closes]
    period = {"timezone": "EST", "gmtoffset": -18000, "start": SESSION.open_ts, "end": SESSION.close_ts}
    meta = {
        "symbol": symbol,
        "currency": "USD",
        "priceHint": 2,
        "instrumentType": "EQUITY",
        "exchangeTimezoneName": "America/New_York",
        "dataGranularity": "1m",
        "range": "",
        "validRanges": ["1d", "5d"],
        "regularMarketTime": SESSION.close_ts,
        "currentTradingPeriod": {"pre": period, "regular": period, "post": period},
        "tradingPeriods": [[period]],
    }
    result: dict[str, Any] = {"meta": meta, "indicators": {"quote": [quote if ts else {}]}}
    if ts:
        result["timestamp"] = ts
    return Answer(body=json.dumps({"chart": {"result": [result], "error": None}}))


def refusal(status: int, description: str, **headers: str) -> Answer:
    error = {"code": "Error", "description": description}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps({"chart": {"result": None, "error": error}}), names)


BARS = chart(AT, [100.0, 101.0, 100.5])
BUSY = Answer(429, "Too Many Requests")


@pytest.fixture(autouse=True)
def _yfinance_of_its_own(tmp_path: Path) -> Iterator[None]:
    configure_yfinance(tmp_path)
    get_tz_cache().store("AAPL", contract.EXCHANGE_TIMEZONE)  # known: no request of its own
    SingletonMeta._instances.pop(YfData, None)
    YfData.cache_get.cache_clear()
    yield
    yfinance.config.debug.hide_exceptions = True


def fetcher(*script: Answer | Exception, sleep: FakeTime | None = None, **settings: Any) -> Fetcher:
    return Fetcher(
        ScriptedYahoo(*script), IngestSettings(**settings), sleep=(sleep or FakeTime()).sleep, jitter=lambda: 0.5
    )


def test_bars_arrive_in_the_contracts_schema() -> None:
    bars = fetcher(BARS).fetch("AAPL", SPAN, FetchCount())
    assert bars.schema == arrow_schema(contract.BARS)
    assert [int(ts.timestamp()) for ts in bars["ts"].to_pylist()] == AT
    assert bars["close"].to_pylist() == [100.0, 101.0, 100.5]
    assert bars["high"].to_pylist() == [100.01, 101.01, 100.51]
    assert bars["volume"].to_pylist() == [10, 20, 30]
    assert set(bars["ticker"].to_pylist()) == {"AAPL"}


def test_a_known_symbol_without_bars_is_empty_and_not_an_error() -> None:
    count = FetchCount()
    assert len(fetcher(chart([], [])).fetch("AAPL", SPAN, count)) == 0
    assert count.retries == 0


def test_a_minute_without_a_price_is_no_bar() -> None:
    # Volume 20 was traded, Yahoo says, at no price: stored, it would break the dataset for good.
    bars = fetcher(chart(AT, [100.0, None, 100.5])).fetch("AAPL", SPAN, FetchCount())
    assert bars["close"].to_pylist() == [100.0, 100.5]
    assert bars["volume"].to_pylist() == [10, 30]


def test_a_404_is_an_unknown_ticker_at_once() -> None:
    source = fetcher(*[refusal(404, "No data found, symbol may be delisted")] * 2, BARS)  # yfinance asks twice
    with pytest.raises(UnknownTicker, match="Yahoo knows no ticker 'AAPL'"):
        source.fetch("AAPL", SPAN, FetchCount())


def test_a_422_is_not_asked_again() -> None:
    time = FakeTime()
    source = fetcher(*[refusal(422, "1m data not available")] * 2, BARS, sleep=time)
    with pytest.raises(YahooError, match="AAPL: Yahoo refuses the request for good"):
        source.fetch("AAPL", SPAN, FetchCount())
    assert time.slept == []


@pytest.mark.parametrize(
    "failure",
    [
        Answer(500, "Internal Server Error"),
        Answer(200, '{"chart": {"resu'),
        Answer(200, '{"chart": {"result": [{}], "error": null}}'),
        Answer(200, '{"chart": {"result": null, "error": null}}'),
        Answer(200, ""),
        BUSY,
        Timeout("timed out"),
    ],
    ids=["500", "cut off", "nonsense", "nothing", "empty", "429", "timeout"],
)
def test_a_passing_failure_is_tried_again_and_the_bars_are_whole(failure: Answer | Exception) -> None:
    # yfinance answers some failures with requests of its own; in the end ours must not see the failed answer.
    count = FetchCount()
    source = fetcher(failure, failure, failure, *[BARS] * 8, attempts=6)
    assert source.fetch("AAPL", SPAN, count)["close"].to_pylist() == [100.0, 101.0, 100.5]
    assert count.retries >= 1
    assert count.requests > count.retries


def test_waiting_doubles_with_jitter_and_adds_what_yahoo_asks_for() -> None:
    time, count = FakeTime(), FetchCount()
    asked = refusal(429, "slow down", Retry_After="7")
    source = fetcher(*[asked] * 20, sleep=time, attempts=4, backoff_s=2)
    with pytest.raises(YahooError, match="AAPL: 4 attempts failed, last: 429 Too Many Requests"):
        source.fetch("AAPL", SPAN, count)
    # Half of 2, 4 and 8 s by the jitter; nothing after the last attempt.
    assert time.slept == [7 + 1, 7 + 2, 7 + 4]
    assert (count.retries, count.rate_limited) == (3, 4)


def test_waiting_is_bounded_and_a_retry_after_that_is_no_number_counts_as_none() -> None:
    time = FakeTime()
    asked = refusal(429, "slow down", Retry_After="Fri, 28 Nov 2025 18:00:00 GMT")
    with pytest.raises(YahooError):
        fetcher(*[asked] * 20, sleep=time, attempts=4, backoff_s=20).fetch("AAPL", SPAN, FetchCount())
    assert time.slept == [10, 15, 15]


# --- frames --------------------------------------------------------------------------------------


def frame(ts: list[int], **changed: list[float]) -> pd.DataFrame:
    columns = {name: [1.0] * len(ts) for name in ("Open", "High", "Low", "Close", "Volume")} | changed
    index = pd.to_datetime(pd.Series(ts, dtype="int64"), unit="s", utc=True).dt.tz_convert("America/New_York")
    return pd.DataFrame(columns, index=pd.DatetimeIndex(index))


def test_rows_outside_the_span_are_dropped() -> None:
    outside = [SESSION.open_ts - 60, SESSION.close_ts]
    bars = bars_from_frame("X", frame([outside[0], *AT, outside[1]]), SPAN)
    assert [int(ts.timestamp()) for ts in bars["ts"].to_pylist()] == AT


def test_the_running_minute_is_dropped() -> None:
    # Yahoo stamps it with the second of its last trade.
    bars = bars_from_frame("X", frame([*AT[:2], AT[1] + 67]), SPAN)
    assert [int(ts.timestamp()) for ts in bars["ts"].to_pylist()] == AT[:2]


def test_a_bar_twice_or_out_of_order_is_refused() -> None:
    for ts in ([AT[0], AT[0]], [AT[1], AT[0]]):
        with pytest.raises(YahooError, match="X: the answer holds a bar twice"):
            bars_from_frame("X", frame(ts), SPAN)


def test_a_frame_without_a_column_is_refused() -> None:
    with pytest.raises(YahooError, match="X: the answer lacks Close, Volume"):
        bars_from_frame("X", frame(AT).drop(columns=["Volume", "Close"]), SPAN)

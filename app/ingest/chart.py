"""Yahoo's chart answers, read: a body becomes columns, or an error that says what it is instead.

The body is decoded into types, so that nothing but numbers and nulls reaches a column; whether the numbers make
bars is for `app.ingest.screening`.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from app.errors import UniverseError, YahooError
from app.ingest.ticker_bars import Floats, Ints, Mask

_GRANULARITY = "1m"


class PassingFailure(YahooError):
    """What another attempt may mend: a broken body, a connection that ended, a server's error.

    retry_after_s: seconds that the server asked to wait first.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Malformed(PassingFailure):
    """A body that is no chart of the ticker."""


class RateLimited(PassingFailure):
    """429: too many requests, in Yahoo's judgement."""


class Refused(YahooError):
    """Yahoo says that the request itself is wrong: asking again is useless."""


class NoData(YahooError):
    """Yahoo says that it has nothing of the ticker in this time: it was not listed yet."""


class Delisted(UniverseError):
    """Yahoo says that it has no such symbol, any more or at all."""


@dataclass(frozen=True)
class RawBars:
    """The columns of one answer as they came: arrays of one length, in any order, NaN for null.

    ts: epoch seconds.
    """

    ts: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def part(self, rows: Mask | Ints) -> RawBars:
        """The rows that a mask or indices select."""
        return RawBars(
            self.ts[rows], self.open[rows], self.high[rows], self.low[rows], self.close[rows], self.volume[rows]
        )


NO_ROWS = RawBars(np.array([], np.int64), *(np.array([], np.float64) for _ in range(5)))


class _Meta(msgspec.Struct):
    symbol: str
    dataGranularity: str = _GRANULARITY  # noqa: N815  Yahoo's name


class _Quote(msgspec.Struct):
    open: list[float | None] = []
    high: list[float | None] = []
    low: list[float | None] = []
    close: list[float | None] = []
    volume: list[float | None] = []


class _Indicators(msgspec.Struct):
    quote: list[_Quote]


class _Result(msgspec.Struct):
    meta: _Meta
    indicators: _Indicators
    timestamp: list[int] = []


class _Error(msgspec.Struct):
    code: str = ""
    description: str | None = None

    def words(self) -> str:
        """What Yahoo says, in one line."""
        return " ".join((self.description or self.code).split())


class _Chart(msgspec.Struct):
    result: list[_Result] | None = None
    error: _Error | None = None


class _Document(msgspec.Struct):
    chart: _Chart


_DECODER = msgspec.json.Decoder(_Document)


def parse_chart(body: bytes, ticker: str) -> RawBars:
    """The columns of a chart of `ticker` with 1-minute bars; none when Yahoo knows the ticker and has no bars.

    Raises Malformed when the body is anything else.
    """
    chart = _decode(body, ticker).chart
    if chart.error is not None:
        raise Malformed(f"{ticker}: {chart.error.words()}")
    if chart.result is None or len(chart.result) != 1 or len(chart.result[0].indicators.quote) != 1:
        raise Malformed(f"{ticker}: the answer holds no chart")
    (result,) = chart.result
    if result.meta.symbol.upper() != ticker.upper():
        raise Malformed(f"{ticker}: the answer is about {result.meta.symbol!r}")
    if result.meta.dataGranularity != _GRANULARITY:
        raise Malformed(f"{ticker}: the answer has bars of {result.meta.dataGranularity!r}")
    (quote,) = result.indicators.quote
    columns = (quote.open, quote.high, quote.low, quote.close, quote.volume)
    if any(len(column) != len(result.timestamp) for column in columns):
        raise Malformed(f"{ticker}: the columns of the answer differ in length")
    try:
        ts = np.array(result.timestamp, np.int64)
    except OverflowError as exc:
        raise Malformed(f"{ticker}: a time in the answer is no time") from exc
    return RawBars(ts, *(np.array(column, np.float64) for column in columns))


def refusal(
    status: int, body: bytes, ticker: str, retry_after_s: float = 0.0
) -> PassingFailure | Refused | NoData | Delisted:
    """What an answer with an HTTP status other than 200 means.

    Delisted only when Yahoo says so: a 404 of anybody else, of a proxy say, is a failure that passes.
    """
    if status in _TOO_MANY:
        return RateLimited(f"{ticker}: {status} Too Many Requests", retry_after_s)
    try:
        error = _decode(body, ticker).chart.error
    except Malformed:
        error = None
    if error is not None and status in _FOR_GOOD:
        if status == _NOT_FOUND and error.code == "Not Found":
            return Delisted(f"{ticker}: {error.words()}")
        if status == _BAD_REQUEST and error.words().startswith(_NO_DATA):
            return NoData(f"{ticker}: {error.words()}")
        return Refused(f"{ticker}: Yahoo refuses the request for good: {error.words()}")
    return PassingFailure(f"{ticker}: status {status}", retry_after_s)


_TOO_MANY = frozenset({429, 999})
_BAD_REQUEST = 400
_NO_DATA = "Data doesn't exist for"
_NOT_FOUND = 404
_FOR_GOOD = frozenset({_BAD_REQUEST, _NOT_FOUND, 422})


def _decode(body: bytes, ticker: str) -> _Document:
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Malformed(f"{ticker}: the answer is no chart: {exc}") from exc

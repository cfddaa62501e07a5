"""One ticker's bars of one span, through unmodified yfinance.

yfinance swallows errors, caches bad answers for the life of the process and reads every failure as
"possibly delisted"; the facts are told apart here by the status that Yahoo really sent.
"""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import yfinance as yf
from curl_cffi.requests.exceptions import RequestException
from peewee import PeeweeException
from yfinance.data import YfData
from yfinance.exceptions import YFException, YFPricesMissingError, YFRateLimitError

from app import contract
from app.errors import UniverseError, YahooError
from app.ingest.bars import empty_bars
from app.ingest.plan import Span
from app.ingest.yahoo_session import Attempt, YahooSession
from app.sessions import utc
from app.settings import IngestSettings
from app.tables import arrow_schema

_OK = 200
_NOT_FOUND = 404
_UNPROCESSABLE = 422
_PASSING = (
    *(YFException, RequestException),
    *(ValueError, KeyError, TypeError, IndexError, AttributeError),  # nonsense in a body, as yfinance's parser has it
    PeeweeException,  # yfinance's threads share SQLite files, which can be locked
)
"""What another attempt may mend."""
_MAX_BACKOFF_S = 30.0
_PRICE_COLUMNS = {"Open": "open", "High": "high", "Low": "low", "Close": "close"}


class UnknownTicker(UniverseError):
    """Yahoo says that it has no such symbol."""

    def __init__(self, ticker: str) -> None:
        super().__init__(f"Yahoo knows no ticker {ticker!r}")
        self.ticker = ticker


@dataclass
class FetchCount:
    """What it took to get one ticker's bars."""

    requests: int = 0
    retries: int = 0
    rate_limited: int = 0


@dataclass(frozen=True)
class Fetcher:
    """Fetches with retries; one per process, shared by its threads."""

    session: YahooSession
    settings: IngestSettings
    sleep: Callable[[float], None] = field(default=time.sleep)
    jitter: Callable[[], float] = field(default=random.random)

    def fetch(self, ticker: str, span: Span, count: FetchCount) -> pa.Table:
        """Bars of `ticker` that start in `span`, in the contract's schema, ascending; empty when there are none.

        Raises UnknownTicker on Yahoo's 404 and YahooError when every attempt failed.
        """
        last_error = ""
        for attempt_no in range(self.settings.attempts):
            if attempt_no:
                count.retries += 1
                YfData.cache_get.cache_clear()  # yfinance keeps a failed answer and would return it again
            attempt = self.session.begin()
            try:
                return self._once(ticker, span, attempt)
            except YFRateLimitError:
                count.rate_limited += 1
                last_error = "429 Too Many Requests"
            except _PASSING as exc:
                if attempt.status == _NOT_FOUND:
                    raise UnknownTicker(ticker) from exc
                if attempt.status == _UNPROCESSABLE:
                    raise YahooError(f"{ticker}: Yahoo refuses the request for good: {exc}") from exc
                last_error = f"{type(exc).__name__}: {exc}"
            finally:
                count.requests += attempt.requests
            self._back_off(attempt_no, attempt)
        raise YahooError(f"{ticker}: {self.settings.attempts} attempts failed, last: {last_error}")

    def _once(self, ticker: str, span: Span, attempt: Attempt) -> pa.Table:
        try:
            frame = yf.Ticker(ticker, session=self.session).history(
                start=utc(span.start_ts),
                end=utc(span.end_ts),
                interval="1m",
                prepost=False,
                actions=False,
                auto_adjust=False,
                timeout=self.settings.timeout_s,
            )
        except YFPricesMissingError:
            if attempt.status == _OK and attempt.names_symbol():
                return empty_bars()
            raise
        return bars_from_frame(ticker, frame, span)

    def _back_off(self, attempt_no: int, attempt: Attempt) -> None:
        if attempt_no + 1 >= self.settings.attempts:
            return
        longest = min(_MAX_BACKOFF_S, self.settings.backoff_s * 2**attempt_no)
        self.sleep(attempt.retry_after_s + longest * self.jitter())


def configure_yfinance(cache_folder: Path) -> None:
    """Make yfinance raise instead of hiding, and keep its SQLite caches in a folder of this process's own.

    Once a process, before its first request: yfinance opens the files once and never again.
    """
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="yfinance")  # its use of pandas
    yf.config.debug.hide_exceptions = False
    yf.set_tz_cache_location(str(cache_folder))


def bars_from_frame(ticker: str, frame: pd.DataFrame, span: Span) -> pa.Table:
    """yfinance's frame (index: aware bar starts) as bars, ascending.

    Dropped are rows outside `span`, rows that lack a price (no bar, the minute is missing) and rows off the
    whole minute: so Yahoo reports the minute that is still running.
    Raises YahooError when the frame lacks a column or holds a bar twice.
    """
    missing = {*_PRICE_COLUMNS, "Volume"} - set(frame.columns)
    if missing:
        raise YahooError(f"{ticker}: the answer lacks {', '.join(sorted(missing))}")
    ts = frame.index.as_unit("ms").asi8
    priced = np.isfinite(frame[list(_PRICE_COLUMNS)].to_numpy("float64")).all(axis=1)
    kept = priced & (ts >= span.start_ts * 1000) & (ts < span.end_ts * 1000) & (ts % (contract.BAR_S * 1000) == 0)
    frame, ts = frame[kept], ts[kept]
    if len(ts) and (ts[1:] <= ts[:-1]).any():
        raise YahooError(f"{ticker}: the answer holds a bar twice")
    schema = arrow_schema(contract.BARS)
    columns: dict[str, Any] = {"ticker": [ticker] * len(ts), "ts": pa.array(ts).cast(schema.field("ts").type)}
    columns |= {ours: frame[theirs].to_numpy("float64") for theirs, ours in _PRICE_COLUMNS.items()}
    columns["volume"] = frame["Volume"].to_numpy("int64")
    return pa.table(columns, schema=schema)

"""Charts through yfinance's own `Ticker.history`: slower and plainer, for when the direct way fails, and to check it.

yfinance swallows errors, caches bad answers for the life of the process and reads every failure as "possibly
delisted"; the facts are told apart here by what Yahoo really sent.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from app import contract
from app.ingest.chart import Malformed, PassingFailure, RateLimited, RawBars, parse_chart, refusal
from app.ingest.counts import FetchCount
from app.ingest.credentials import NONSENSE, prepare_yfinance
from app.ingest.plan import Span
from app.ingest.yahoo_session import Attempt, Elsewhere, YahooSession, retry_after_s
from app.sessions import utc

_OK = 200
_COLUMNS = ("Open", "High", "Low", "Close", "Volume")


@dataclass(frozen=True)
class YFinanceReply:
    """What yfinance has read already."""

    raw: RawBars

    def read(self) -> RawBars:
        """The columns."""
        return self.raw


class YFinanceClient:
    """As DirectClient, in threads."""

    def __init__(self, elsewhere: Elsewhere, *, in_flight: int, timeout_s: float) -> None:
        self._session = YahooSession(elsewhere)
        self._threads = ThreadPoolExecutor(in_flight, thread_name_prefix="yahoo")
        self._timeout_s = timeout_s

    async def __aenter__(self) -> YFinanceClient:
        prepare_yfinance()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def ask(self, ticker: str, span: Span, count: FetchCount) -> YFinanceReply:
        """As DirectClient.ask; Malformed is raised here, too."""
        loop = asyncio.get_running_loop()
        return YFinanceReply(await loop.run_in_executor(self._threads, self._ask, ticker, span, count))

    def _ask(self, ticker: str, span: Span, count: FetchCount) -> RawBars:
        from peewee import PeeweeException  # noqa: PLC0415  see prepare_yfinance
        from yfinance.data import YfData  # noqa: PLC0415
        from yfinance.exceptions import YFException, YFPricesMissingError, YFRateLimitError  # noqa: PLC0415

        YfData.cache_get.cache_clear()  # it keeps a failed answer and would return it again
        attempt = self._session.begin()
        try:
            return raw_bars_of(ticker, self._history(ticker, span))
        except YFRateLimitError as exc:
            raise RateLimited(f"{ticker}: 429 Too Many Requests", _asked_wait_s(attempt)) from exc
        except (YFException, OSError, PeeweeException, *NONSENSE) as exc:
            if attempt.answer is None:
                raise PassingFailure(f"{ticker}: {type(exc).__name__}: {exc}") from exc
            if attempt.answer.status_code != _OK:
                status, body = attempt.answer.status_code, attempt.answer.content
                raise refusal(status, body, ticker, _asked_wait_s(attempt)) from exc
            if isinstance(exc, YFPricesMissingError):
                return parse_chart(attempt.answer.content, ticker)  # a known ticker without bars, or nonsense
            raise Malformed(f"{ticker}: {type(exc).__name__}: {exc}") from exc
        finally:
            count.requests += attempt.requests

    def _history(self, ticker: str, span: Span) -> Any:
        import yfinance  # noqa: PLC0415
        from yfinance.cache import get_tz_cache  # noqa: PLC0415

        if get_tz_cache().lookup(ticker) is None:  # known beforehand: else one request for each ticker
            get_tz_cache().store(ticker, contract.EXCHANGE_TIMEZONE)
        return yfinance.Ticker(ticker, session=self._session).history(
            start=utc(span.start_ts),
            end=utc(span.end_ts),
            interval="1m",
            prepost=False,
            actions=False,
            auto_adjust=False,
            timeout=self._timeout_s,
        )


def raw_bars_of(ticker: str, frame: Any) -> RawBars:
    """yfinance's frame (index: aware bar starts) as columns; Malformed when it lacks one."""
    lacking = sorted({*_COLUMNS} - {*frame.columns})
    if lacking:
        raise Malformed(f"{ticker}: the answer lacks {', '.join(lacking)}")
    ts = frame.index.as_unit("s").asi8
    return RawBars(np.asarray(ts, np.int64), *(frame[name].to_numpy("float64") for name in _COLUMNS))


def _asked_wait_s(attempt: Attempt) -> float:
    return 0.0 if attempt.answer is None else retry_after_s(attempt.answer.headers)

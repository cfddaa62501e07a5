"""Charts asked for directly: many requests in flight on one asyncio loop, answers parsed in a millisecond.

The session's cookie and crumb are yfinance's, got in a thread beside the first requests: the chart answers without
them too, and who is refused without gets them before the next attempt.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from curl_cffi import CurlOpt
from curl_cffi.requests import AsyncSession
from curl_cffi.requests.exceptions import RequestException

from app.ingest.chart import PassingFailure, RawBars, parse_chart, refusal
from app.ingest.counts import FetchCount
from app.ingest.credentials import Credentials, obtain
from app.ingest.plan import Span
from app.ingest.yahoo_session import CHART_PATH, Elsewhere, YahooSession, retry_after_s

_HOST = "https://query2.finance.yahoo.com"
_CONSENT_HOST = "consent.yahoo.com"
_BUFFER_BYTES = 512 * 1024
"""An answer of a week has 180 kB: one call from curl rather than a dozen."""
_MOST_BYTES = 32 * 1024 * 1024
"""No answer has a hundredth of it."""
_OK = 200
_REFUSED_CREDENTIALS = frozenset({401, 403})


@dataclass(frozen=True)
class DirectReply:
    """The body of an answer with status 200."""

    ticker: str
    body: bytes

    def read(self) -> RawBars:
        """The columns; Malformed when the body is no chart."""
        return parse_chart(self.body, self.ticker)


class DirectClient:
    """Asks Yahoo's chart; use it as an asynchronous context manager, within one loop."""

    def __init__(self, elsewhere: Elsewhere, *, in_flight: int, timeout_s: float) -> None:
        self._elsewhere, self._in_flight, self._timeout_s = elsewhere, in_flight, timeout_s
        self._for_yfinance = YahooSession(elsewhere)
        self._credentials = Credentials()
        self._obtaining: asyncio.Future[None] | None = None

    async def __aenter__(self) -> DirectClient:
        self._curl: AsyncSession[Any] = AsyncSession(
            impersonate="chrome",
            max_clients=self._in_flight,
            curl_options={
                CurlOpt.BUFFERSIZE: _BUFFER_BYTES,
                CurlOpt.MAXFILESIZE_LARGE: _MOST_BYTES,
                **self._elsewhere.options(),
            },
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._curl.close()

    async def ask(self, ticker: str, span: Span, count: FetchCount) -> DirectReply:
        """What Yahoo replies about `ticker` and `span`, asked once.

        Raises PassingFailure, of which RateLimited is a kind, Refused, NoData and Delisted.
        """
        if self._obtaining is None:
            self._obtain(None)
        carried = self._credentials
        asked = {"period1": span.start_ts, "period2": span.end_ts, "interval": "1m", "includePrePost": "false"}
        if carried.crumb:
            asked["crumb"] = carried.crumb
        count.requests += 1
        try:
            answer = await self._curl.get(
                self._elsewhere.url(f"{_HOST}{CHART_PATH}{ticker}"), params=asked, timeout=self._timeout_s
            )
        except RequestException as exc:
            raise PassingFailure(f"{ticker}: {type(exc).__name__}: {exc}") from exc
        if answer.status_code in _REFUSED_CREDENTIALS or _CONSENT_HOST in answer.url:
            await self._renew(carried)
            raise PassingFailure(
                f"{ticker}: Yahoo refused cookie or crumb ({answer.status_code})", retry_after_s(answer.headers)
            )
        if answer.status_code != _OK:
            raise refusal(answer.status_code, answer.content, ticker, retry_after_s(answer.headers))
        return DirectReply(ticker, answer.content)

    async def _renew(self, refused: Credentials) -> None:
        """Wait for credentials other than the refused ones; of many that were refused together one asks."""
        if self._credentials is refused and (self._obtaining is None or self._obtaining.done()):
            self._obtain(refused)
        if self._obtaining is not None:
            await asyncio.shield(self._obtaining)

    def _obtain(self, refused: Credentials | None) -> None:
        """Start to get credentials in a thread that nobody needs to wait for."""
        loop = asyncio.get_running_loop()
        done = self._obtaining = loop.create_future()

        def take(credentials: Credentials) -> None:
            self._credentials = credentials
            for cookie in credentials.cookies:
                self._curl.cookies.jar.set_cookie(cookie)
            if not done.done():
                done.set_result(None)

        def ask() -> None:
            credentials = Credentials()
            try:
                credentials = obtain(self._for_yfinance, self._timeout_s, refused)
            finally:  # whoever waits goes on, whatever went wrong
                with suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(take, credentials)

        threading.Thread(target=ask, name="yahoo-credentials", daemon=True).start()

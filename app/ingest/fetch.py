"""One request and all that may come of it: turns, retries, second looks."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.clock import Clock
from app.errors import YahooError
from app.ingest.chart import NO_ROWS, Delisted, NoData, PassingFailure, RateLimited, RawBars, Refused
from app.ingest.counts import FetchCount
from app.ingest.pacing import Pacer, PauseTooLong
from app.ingest.plan import Span
from app.ingest.screening import Screened, screen
from app.ingest.ticker_bars import TickerBars, latest
from app.sessions import Session
from app.settings import IngestSettings

_MAX_BACKOFF_S = 30.0


class Reply(Protocol):
    """What came back for one request, not yet read."""

    def read(self) -> RawBars:
        """The columns; PassingFailure when they cannot be read."""


class Client(Protocol):
    """Who sends requests."""

    async def ask(self, ticker: str, span: Span, count: FetchCount) -> Reply:
        """What Yahoo replies, asked once; errors as app.ingest.chart names them."""


@dataclass(frozen=True)
class Answer:
    """What Yahoo has for one ticker's span of sessions.

    asked_ts: epoch seconds of the last request. sure: the answer was whole, or a second one agreed with it.
    faults: rows by fault, see Screened.
    """

    bars: TickerBars
    asked_ts: int
    sure: bool
    faults: Counter[str]


@dataclass
class Fetcher:
    """Fetches with retries: one worker's, shared by all its requests, in one asyncio loop."""

    client: Client
    settings: IngestSettings
    clock: Clock
    pacer: Pacer
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.settings.in_flight)

    async def fetch(self, ticker: str, sessions: Sequence[Session], count: FetchCount) -> Answer:
        """The bars of sessions that follow each other (one span).

        A doubtful answer is asked for again until two agree, at most `attempts` times; what any of them held counts.
        Raises Delisted and Refused on Yahoo's word, YahooError when every attempt failed.
        """
        span = Span(sessions[0].open_ts, sessions[-1].close_ts)
        screened, asked_ts = await self._ask(ticker, span, sessions, count)
        bars, faults = screened.bars, Counter(screened.faults)
        sure = not screened.doubtful
        for look in range(1, self.settings.attempts):
            if sure:
                break
            await self._back_off(look - 1)
            count.verified += 1
            before = screened
            screened, asked_ts = await self._ask(ticker, span, sessions, count)
            sure = not screened.doubtful or screened.bars.same_as(before.bars)
            bars = latest([bars, screened.bars])
            faults |= screened.faults
        return Answer(bars, asked_ts, sure, faults)

    async def look(self, ticker: str, sessions: Sequence[Session], count: FetchCount) -> TickerBars:
        """The bars of one answer, doubtful or not: for whoever asks again soon. Sessions and errors as `fetch`."""
        screened, _ = await self._ask(ticker, Span(sessions[0].open_ts, sessions[-1].close_ts), sessions, count)
        return screened.bars

    async def _ask(
        self, ticker: str, span: Span, sessions: Sequence[Session], count: FetchCount
    ) -> tuple[Screened, int]:
        """One answer, screened, and when it was asked for; a 429 is no attempt of this request's."""
        failures = 0
        while True:
            self._lose_patience(ticker)
            try:
                return await self._once(ticker, span, sessions, count)
            except RateLimited:
                count.rate_limited += 1
                count.retries += 1
                self._lose_patience(ticker, ": 429 Too Many Requests")
            except PauseTooLong as exc:
                raise YahooError(f"{ticker}: {exc}, longer than ingest.patience_s") from exc
            except PassingFailure as exc:
                self.pacer.failed()
                if exc.retry_after_s:
                    self.pacer.pause(exc.retry_after_s)
                failures += 1
                if failures >= self.settings.attempts:
                    raise YahooError(f"{ticker}: {failures} attempts failed, last: {_cause(exc, ticker)}") from exc
                count.retries += 1
                await self._back_off(failures - 1)

    async def _once(
        self, ticker: str, span: Span, sessions: Sequence[Session], count: FetchCount
    ) -> tuple[Screened, int]:
        """The slot is free again before the reply is read, so that the next request is on its way meanwhile."""
        async with self._slots:
            turn = await self.pacer.turn(self.settings.patience_s)
            asked_ts = self.clock().timestamp()
            try:
                reply: Reply | None = await self.client.ask(ticker, span, count)
            except RateLimited as exc:
                self.pacer.refused(turn, exc.retry_after_s)
                raise
            except NoData:
                reply = None
            except (Delisted, Refused):
                self.pacer.answered()
                raise
        await asyncio.sleep(0)
        raw = reply.read() if reply else NO_ROWS
        self.pacer.answered()
        return screen(raw, sessions, asked_ts, self.settings.complete_share), int(asked_ts)

    def _lose_patience(self, ticker: str, why: str = "") -> None:
        patience_s = self.settings.patience_s
        if self.pacer.fruitless_s() > patience_s:
            raise YahooError(f"{ticker}: no answer from Yahoo in more than {patience_s:g} s{why}")

    async def _back_off(self, failures: int) -> None:
        await self.sleep(min(_MAX_BACKOFF_S, self.settings.backoff_s * 2**failures) * self.jitter())


def _cause(exc: Exception, ticker: str) -> str:
    return str(exc).removeprefix(f"{ticker}: ")

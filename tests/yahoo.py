"""Stand-ins for Yahoo: a client that answers from bars or from a script."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from app.ingest.chart import Delisted, Malformed, RawBars
from app.ingest.counts import FetchCount
from app.ingest.plan import Span
from app.ingest.ticker_bars import NO_BARS, TickerBars
from app.sessions import Session, utc


def raw(bars: TickerBars) -> RawBars:
    """Bars as an answer brings them."""
    return RawBars(bars.ts.copy(), *(column.astype(np.float64) for column in (*bars.prices, bars.volume)))


@dataclass(frozen=True)
class Reply:
    """What a stand-in replies: columns, or the error that reading it raises."""

    content: RawBars | BaseException

    def read(self) -> RawBars:
        """The columns."""
        if isinstance(self.content, BaseException):
            raise self.content
        return self.content


class ScriptedClient:
    """Gives answers one after another, the last one for ever.

    An exception is raised: Malformed when the reply is read, others at once. spans, asked_s: of each
    request, the time of the loop.
    """

    def __init__(self, *script: RawBars | TickerBars | Exception, latency_s: float = 0.0) -> None:
        self._script = deque(script)
        self._latency_s = latency_s
        self.spans: list[Span] = []
        self.asked_s: list[float] = []

    async def ask(self, ticker: str, span: Span, count: FetchCount) -> Reply:
        """The next answer."""
        count.requests += 1
        self.spans.append(span)
        self.asked_s.append(asyncio.get_running_loop().time())
        answer = self._script.popleft() if len(self._script) > 1 else self._script[0]
        await asyncio.sleep(self._latency_s)
        if isinstance(answer, Exception) and not isinstance(answer, Malformed):
            raise answer
        return Reply(raw(answer) if isinstance(answer, TickerBars) else answer)


class FakeYahoo:
    """A client that answers from bars, as of `now`, which is also a Clock; a context manager as the real ones.

    bars: by ticker; one that is not there is delisted. errors: by ticker, or ticker and span; raised while there are
    any. asked: how often each ticker's span was asked for.
    """

    def __init__(self, bars: Mapping[str, TickerBars], now: datetime) -> None:
        self.bars = dict(bars)
        self.now = now
        self.errors: dict[str | tuple[str, Span], list[BaseException]] = {}
        self.asked: Counter[tuple[str, Span]] = Counter()

    def client(self, *args: Any, **options: Any) -> FakeYahoo:
        """Stands in for a client's class."""
        return self

    def clock(self) -> datetime:
        """Now."""
        return self.now

    def tickers_asked(self) -> set[str]:
        """The tickers that were asked for."""
        return {ticker for ticker, _ in self.asked}

    async def __aenter__(self) -> FakeYahoo:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def ask(self, ticker: str, span: Span, count: FetchCount) -> Reply:
        """The bars that had begun by now, the running one included."""
        count.requests += 1
        self.asked[ticker, span] += 1
        await asyncio.sleep(0)
        for errors in (self.errors.get(ticker), self.errors.get((ticker, span))):
            if errors:
                raise errors.pop(0)
        if ticker not in self.bars:
            raise Delisted(f"{ticker}: No data found, symbol may be delisted")
        return Reply(raw(self.bars[ticker].between(span.start_ts, min(span.end_ts, int(self.now.timestamp()) + 1))))


def walk(seed: str, *sessions: Session, minutes: Iterable[int] | None = None) -> TickerBars:
    """A random walk of its own for each seed over the sessions, in all of their minutes or in these."""
    parts = []
    for session in sessions:
        at = np.array(sorted(minutes) if minutes is not None else range(session.minutes), np.int64)
        random = np.random.default_rng([*seed.encode(), session.day.toordinal()])
        price = np.round(100 * np.exp(random.normal(0, 0.001, session.minutes).cumsum()), 4)[at]
        volume = random.integers(1, 10_000, session.minutes)[at]
        parts.append(TickerBars(session.open_ts + 60 * at, price, price + 0.01, price - 0.01, price, volume))
    return joined(*parts)


def joined(*parts: TickerBars) -> TickerBars:
    """Bars that follow each other as one."""
    if not parts:
        return NO_BARS
    columns = zip(*((part.ts, *part.prices, part.volume) for part in parts), strict=True)
    return TickerBars(*(np.concatenate(column) for column in columns))


def minutes_after(session: Session, minutes: float) -> datetime:
    """The instant so long after a session's open."""
    return utc(session.open_ts + round(60 * minutes))

"""The running market as ticks: each minute, the bars that have closed since."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np
import pyarrow as pa

from app import contract
from app.clock import Clock, system_clock
from app.errors import YahooError
from app.ingest.bars import bars_of, to_table
from app.ingest.plan import Plan
from app.ingest.poll import Market, Polled
from app.ingest.ticker_bars import NO_BARS, TickerBars, latest
from app.progress import Report, Say, silent
from app.serving.tick_writer import TickWriter
from app.sessions import Session
from app.settings import ServingSettings

_CONTEXT_MIN = 15
"""A ticker is asked for so many minutes before its newest bar: the checks at the door compare bars with those."""
_NAP_S = 60.0
"""The longest sleep: after it the clock is looked at, since a laptop may have been asleep longer."""
_NAMED = 5


def feed_live(
    plan: Plan,
    session: Session,
    writer: TickWriter,
    settings: ServingSettings,
    connect: Callable[[], AbstractAsyncContextManager[Market]],
    *,
    say: Say,
    report: Report = silent,
    clock: Clock = system_clock,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> dict[str, Any]:
    """Write the bars of `session` as ticks while it runs: one poll a minute, `poll_delay_s` after the minute's end.

    Waits for the open, goes on after what an earlier process wrote, and ends when the last minute's bars are there
    and no more come, or `grace_s` after the close. A bar that Yahoo revises within `watermark_min` is fed again. What
    a poll misses comes with a later one; say: told of it in one line, when it changes. Returns, and stores last, what
    was written. Raises YahooError when no bar came in the whole session.
    """

    async def feed() -> dict[str, Any]:
        async with connect() as market:
            return await _LiveFeed(plan, session, writer, settings, market, say, report, clock, sleep).run()

    return asyncio.run(feed())


class FedBars:
    """What has been fed of each ticker, the last copy of each bar."""

    def __init__(self, fed: Mapping[str, TickerBars]) -> None:
        self._fed = dict(fed)

    def __contains__(self, ticker: str) -> bool:
        return ticker in self._fed

    def newest_ts(self, ticker: str) -> int | None:
        """Start of a ticker's newest bar (epoch s)."""
        return int(self._fed[ticker].ts[-1]) if ticker in self._fed else None

    def bars(self) -> int:
        """How many there are."""
        return sum(map(len, self._fed.values()))

    def any_at(self, ts: int) -> bool:
        """Whether any ticker has a bar of this minute or a later one."""
        return any(bars.ts[-1] >= ts for bars in self._fed.values())

    def take(self, ticker: str, bars: TickerBars, revisable_ts: int) -> tuple[TickerBars, int]:
        """Those that were not fed, or from `revisable_ts` on with other values, and how many are such.

        From now on they count as fed.
        """
        known = self._fed.get(ticker, NO_BARS)
        place = np.searchsorted(known.ts, bars.ts)
        held = np.isin(bars.ts, known.ts)
        before, now = known.part(place[held]), bars.part(held)
        same = (np.stack([*before.prices, before.volume]) == np.stack([*now.prices, now.volume])).all(axis=0)
        fresh = ~held
        fresh[held] = ~same & (now.ts >= revisable_ts)
        new = bars.part(fresh)
        if len(new):
            self._fed[ticker] = latest([known, new])
        return new, int(fresh[held].sum())


class _LiveFeed:
    def __init__(
        self,
        plan: Plan,
        session: Session,
        writer: TickWriter,
        settings: ServingSettings,
        market: Market,
        say: Say,
        report: Report,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._session, self._writer, self._settings, self._market = session, writer, settings, market
        self._say, self._report, self._clock, self._sleep = say, report, clock, sleep
        self._fed = FedBars(bars_of(writer.resume()))
        self._tickers = plan.tickers
        self._answered_s = dict.fromkeys(plan.tickers, 0.0)
        self._said = ""
        self._missed = {"polls": 0, "polls_in_part": 0, "polls_skipped": 0}  # by this process

    async def run(self) -> dict[str, Any]:
        """From before the open to the end of the feed."""
        due_s = self._due_after(-math.inf)
        while True:
            await self._sleep_until(due_s)
            asked_s = self._now_s()
            new, complete = await self._poll(asked_s)
            due_s = self._due_after(self._now_s())
            self._missed["polls_skipped"] += round((due_s - self._due_after(asked_s)) / contract.BAR_S)
            if asked_s >= self._session.close_ts and (
                due_s > self._session.close_ts + self._settings.grace_s
                or (complete and not new and self._fed.any_at(self._session.close_ts - contract.BAR_S))
            ):
                return self._end()

    async def _poll(self, asked_s: float) -> tuple[int, bool]:
        """Feed what one poll brings: the number of its ticks, and whether every ticker was answered."""
        polled = await self._market.poll(self._wanted())
        closed_s = asked_s // contract.BAR_S * contract.BAR_S
        revisable_ts = int(closed_s) - self._settings.watermark_min * contract.BAR_S
        taken = {ticker: self._fed.take(ticker, bars, revisable_ts) for ticker, bars in polled.bars.items()}
        table: pa.Table = to_table({ticker: new for ticker, (new, _) in taken.items()})
        if len(table):
            self._writer.put(table, sum(revised for _, revised in taken.values()))
        self._answered_s.update(dict.fromkeys(polled.bars, asked_s))
        self._tell(polled)
        minutes = int(min(self._session.minutes, (closed_s - self._session.open_ts) // contract.BAR_S))
        self._report(minutes, self._session.minutes, "minutes fed")
        return len(table), not polled.errors

    def _wanted(self) -> dict[str, Session]:
        """The part of the session that each ticker is asked for; who was answered longest ago comes first."""
        wanted = {}
        for ticker in sorted(self._tickers, key=lambda ticker: self._answered_s[ticker]):
            newest_ts = self._fed.newest_ts(ticker)
            first_ts = self._session.open_ts if newest_ts is None else newest_ts - self._context_s()
            wanted[ticker] = self._session.since(max(self._session.open_ts, first_ts))
        return wanted

    def _context_s(self) -> int:
        return (_CONTEXT_MIN + self._settings.watermark_min) * contract.BAR_S

    def _tell(self, polled: Polled) -> None:
        """Say what a poll missed, or that nothing is missed any more; the same sentence is not said twice."""
        every, missing = len(self._tickers), sorted(polled.errors)
        sentence = ""
        if missing:
            self._missed["polls_in_part" if polled.bars else "polls"] += 1
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            names, why = ", ".join(missing[:_NAMED]) + more, polled.errors[missing[0]]
            sentence = f"{len(missing)} of {every} tickers are not answered ({names}), first: {why}"
        if sentence != self._said:
            self._say(sentence or f"all {every} tickers are answered again")
            self._said = sentence

    def _end(self) -> dict[str, Any]:
        silent_tickers = [ticker for ticker in self._tickers if ticker not in self._fed]
        if len(silent_tickers) == len(self._tickers):
            raise YahooError(f"Yahoo gave no bar of {self._session.day}: {self._said or 'every answer was empty'}")
        minutes = self._session.minutes * (len(self._tickers) - len(silent_tickers)) - self._fed.bars()
        return self._writer.end(missed={**self._missed, "tickers": silent_tickers, "minutes": minutes})

    def _due_after(self, now_s: float) -> float:
        """The next poll: so long after the end of a minute."""
        first_s = self._session.open_ts + contract.BAR_S + self._settings.poll_delay_s
        if now_s < first_s:
            return first_s
        return first_s + ((now_s - first_s) // contract.BAR_S + 1) * contract.BAR_S

    async def _sleep_until(self, due_s: float) -> None:
        while (left_s := due_s - self._now_s()) > 0:
            await self._sleep(min(_NAP_S, left_s))

    def _now_s(self) -> float:
        return self._clock().timestamp()

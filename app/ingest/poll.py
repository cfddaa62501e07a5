"""One poll of the running market: a single look at many tickers, of which none holds up the others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from app.errors import UniverseError, YahooError
from app.ingest.counts import FetchCount
from app.ingest.fetch import Fetcher
from app.ingest.ticker_bars import TickerBars
from app.sessions import Session


@dataclass(frozen=True)
class Polled:
    """What one poll brought. bars: closed ones, by each ticker that was answered; errors: why the others were not."""

    bars: Mapping[str, TickerBars]
    errors: Mapping[str, str]


class Market(Protocol):
    """Who knows the newest bars."""

    async def poll(self, wanted: Mapping[str, Session]) -> Polled:
        """The closed bars of each ticker in its (part of a) session; the tickers are asked for in this order."""


class Poller:
    """A Market that asks with the ingest's requests: their pace, retries and checks, but no second looks.

    timeout_s: of a whole poll; what is answered later is left to the next one.
    """

    def __init__(self, fetcher: Fetcher, timeout_s: float) -> None:
        self._fetcher, self._timeout_s = fetcher, timeout_s

    async def poll(self, wanted: Mapping[str, Session]) -> Polled:
        """As Market.poll; nothing that Yahoo does is raised."""
        self._fetcher.pacer.renew_patience()
        tasks = {
            ticker: asyncio.create_task(self._fetcher.look(ticker, [part], FetchCount()))
            for ticker, part in wanted.items()
        }
        try:
            await asyncio.wait(tasks.values(), timeout=self._timeout_s)
        finally:
            late = [task for task in tasks.values() if not task.done()]
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        bars: dict[str, TickerBars] = {}
        errors: dict[str, str] = {}
        for ticker, task in tasks.items():
            try:
                bars[ticker] = task.result()
            except asyncio.CancelledError:
                errors[ticker] = f"no answer within {self._timeout_s:g} s"
            except (YahooError, UniverseError) as exc:
                errors[ticker] = str(exc).removeprefix(f"{ticker}: ")
        return Polled(bars, errors)

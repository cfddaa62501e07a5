"""The embedded Yahoo inside the calling process, for tests and short runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from embedded.market.bars import Market
from embedded.yahoo.faults import NO_FAULTS, Faults
from embedded.yahoo.server import Stats, YahooServer


@dataclass(frozen=True)
class RunningServer:
    """A server that answers: its address and its counters."""

    url: str
    now: datetime
    _server: YahooServer
    _loop: asyncio.AbstractEventLoop

    def stats(self) -> Stats:
        """The counters so far, without a request."""

        async def read() -> Stats:
            return self._server.stats()

        return asyncio.run_coroutine_threadsafe(read(), self._loop).result()


@contextmanager
def running_server(
    market: Market, *, faults: Faults = NO_FAULTS, now: datetime | None = None, port: int = 0
) -> Iterator[RunningServer]:
    """Run the server in a thread for the length of a `with` block.

    now: the instant at which it stands, None is two hours after the market's end. Raises OSError when the
    port is in use.
    """
    server = YahooServer(market, faults=faults, now=now)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="embedded-yahoo", daemon=True)
    thread.start()
    try:
        runner, url = asyncio.run_coroutine_threadsafe(server.start(port), loop).result()
        try:
            yield RunningServer(url, server.now, server, loop)
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

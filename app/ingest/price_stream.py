"""Minute bars of the prices that Yahoo's websocket tells, as yfinance knows its messages.

yfinance's own AsyncWebSocket is not used: once a server has closed its connection it never opens another one, and its
loop then leaves no time for anything else.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import numpy as np

from app import contract
from app.clock import Clock
from app.ingest.chart import RawBars
from app.ingest.collect import open_poller
from app.ingest.credentials import prepare_yfinance
from app.ingest.poll import Market, Polled
from app.ingest.screening import screen
from app.progress import Say
from app.sessions import Session
from app.settings import Settings

URL: Final = "wss://streamer.finance.yahoo.com/?version=2"
_SUBSCRIBE_S = 15.0
"""Yahoo forgets who does not subscribe again, says yfinance."""
_SILENCE_S = 30.0
"""A connection that tells nothing for so long in a running session is given up."""
_AGAIN_S = 3.0
_KEPT_MIN = 30
"""Minutes of bars that are kept: a price may come late."""
_REGULAR_MARKET = 1
_EARLY_S = 60
"""Prices are listened to from so long before the open."""


@asynccontextmanager
async def open_market(
    tickers: Sequence[str],
    session: Session,
    settings: Settings,
    *,
    yahoo_url: str | None,
    stream_url: str | None,
    clock: Clock,
    say: Say,
) -> AsyncIterator[Market]:
    """The Market that `serving.live_client` names; URLs of what stands in for Yahoo, None for Yahoo itself.

    say: told in a line when a stream of prices cannot be listened to, and when it can again.
    """
    timeout_s = settings.serving.poll_timeout_s
    async with open_poller(settings.ingest, timeout_s, yahoo_url=yahoo_url, clock=clock) as poller:
        if settings.serving.live_client == "poll":
            yield poller
            return
        async with open_price_stream(tickers, session, poller, url=stream_url, clock=clock, say=say) as stream:
            yield stream


@asynccontextmanager
async def open_price_stream(
    tickers: Sequence[str], session: Session, backup: Market, *, url: str | None, clock: Clock, say: Say
) -> AsyncIterator[PriceStream]:
    """A Market that listens at `url` (None: Yahoo's) while the context lasts, for the length of the session."""
    stream = PriceStream(tickers, session, backup, url or URL, clock, say)
    await asyncio.to_thread(prepare_yfinance)  # the import takes a second
    listening = asyncio.create_task(stream.listen())
    try:
        yield stream
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


class PriceStream:
    """Bars of the prices that were heard; `backup` is asked for minutes that were not heard from their start.

    Those are each ticker's first minute after a connection was made, and every minute while there is none.
    """

    def __init__(
        self, tickers: Sequence[str], session: Session, backup: Market, url: str, clock: Clock, say: Say
    ) -> None:
        self._tickers, self._session, self._backup = frozenset(tickers), session, backup
        self._url, self._clock, self._say = url, clock, say
        self._lost_s: float | None = None
        self._said = False
        self._bars: defaultdict[str, dict[int, _Bar]] = defaultdict(dict)
        self._day_volume: dict[str, int] = {}
        self._heard_from: dict[str, int] = {}
        self._had_to: dict[str, int] = {}

    async def poll(self, wanted: Mapping[str, Session]) -> Polled:
        """As Market.poll."""
        now_s = self._now_s()
        closed_s = int(now_s // contract.BAR_S) * contract.BAR_S
        heard = {
            ticker: part
            for ticker, part in wanted.items()
            if self._heard_from.get(ticker, math.inf) <= self._had_to.get(ticker, 0)
        }
        bars = {ticker: screen(self._raw(ticker), [part], now_s, 1.0).bars for ticker, part in heard.items()}
        rest = {ticker: part for ticker, part in wanted.items() if ticker not in heard}
        polled = await self._backup.poll(rest) if rest else Polled({}, {})
        self._had_to.update(dict.fromkeys([*heard, *polled.bars], closed_s))
        return Polled({**bars, **polled.bars}, polled.errors)

    def take(self, message: str | bytes) -> None:
        """Note one message; one that is no price of the regular session is nobody's."""
        from google.protobuf.message import DecodeError  # noqa: PLC0415  comes with yfinance
        from yfinance.pricing_pb2 import PricingData  # noqa: PLC0415  see prepare_yfinance

        price = PricingData()
        try:
            price.ParseFromString(base64.b64decode(json.loads(message)["message"]))
        except (ValueError, KeyError, TypeError, DecodeError):
            return
        if price.id in self._tickers and price.market_hours == _REGULAR_MARKET and 0 < price.price < math.inf:
            self._take(price.id, price.time // 1000 // contract.BAR_S * contract.BAR_S, price.price, price.day_volume)

    def _take(self, ticker: str, minute: int, price: float, day_volume: int) -> None:
        self._heard_from.setdefault(ticker, minute + contract.BAR_S)
        before = self._day_volume.get(ticker, day_volume)
        self._day_volume[ticker] = max(day_volume, before)
        bars = self._bars[ticker]
        bars.setdefault(minute, _Bar(price)).take(price, max(0, day_volume - before))
        if len(bars) > _KEPT_MIN:
            del bars[min(bars)]

    def _raw(self, ticker: str) -> RawBars:
        heard = sorted((ts, bar) for ts, bar in self._bars[ticker].items() if ts >= self._heard_from[ticker])
        columns = np.array([[bar.open, bar.high, bar.low, bar.close, bar.volume] for _, bar in heard], np.float64)
        return RawBars(np.array([ts for ts, _ in heard], np.int64), *columns.reshape(-1, 5).T)

    async def listen(self) -> None:
        """Hear prices from the open on, for ever, over as many connections as it takes."""
        from websockets.asyncio.client import connect  # noqa: PLC0415  comes with yfinance
        from websockets.exceptions import WebSocketException  # noqa: PLC0415

        while (early_s := self._session.open_ts - _EARLY_S - self._now_s()) > 0:
            await asyncio.sleep(min(_EARLY_S, early_s))
        while True:
            try:
                async with connect(self._url) as connection:
                    await self._hear(connection)
                self._lost(f"told nothing for {_SILENCE_S:g} s")
            except (OSError, WebSocketException) as exc:  # TimeoutError is an OSError
                self._lost(str(exc) or type(exc).__name__)
            finally:
                self._heard_from.clear()
            await asyncio.sleep(_AGAIN_S)

    def _lost(self, why: str) -> None:
        """A connection ended or was not made: told when none has brought a price for a while."""
        now_s = asyncio.get_running_loop().time()
        self._lost_s = now_s if self._lost_s is None else self._lost_s
        if not self._said and now_s - self._lost_s >= _SILENCE_S:
            self._said = True
            self._say(f"no prices from {self._url} ({why}): charts are asked for instead")

    def _found(self) -> None:
        self._lost_s = None
        if self._said:
            self._said = False
            self._say(f"prices from {self._url} again")

    async def _hear(self, connection: Any) -> None:
        """Take what one connection tells until it ends, or tells nothing while there is trade."""
        subscription = json.dumps({"subscribe": sorted(self._tickers)})
        loop = asyncio.get_running_loop()
        heard_s = loop.time()
        while True:
            await connection.send(subscription)
            until_s = loop.time() + _SUBSCRIBE_S
            while (left_s := until_s - loop.time()) > 0:
                with suppress(TimeoutError):
                    self.take(await asyncio.wait_for(connection.recv(), left_s))
                    heard_s = loop.time()
                    self._found()
            in_session = self._session.open_ts <= self._now_s() < self._session.close_ts
            if in_session and loop.time() - heard_s > _SILENCE_S:
                return

    def _now_s(self) -> float:
        return self._clock().timestamp()


class _Bar:
    def __init__(self, price: float) -> None:
        self.open = self.high = self.low = self.close = price
        self.volume = 0

    def take(self, price: float, volume: int) -> None:
        self.high, self.low, self.close = max(self.high, price), min(self.low, price), price
        self.volume += volume

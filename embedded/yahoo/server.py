"""A local server that speaks what unmodified yfinance 1.7.0 needs of Yahoo: cookie, crumb and chart.

It stands at one instant: a chart shows what had happened by then. The paths are Yahoo's, whatever the
host that a request names, so that a client only has to send its requests here.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, TypedDict

from aiohttp import web

from app.sessions import sessions_between
from embedded.aws.ports import HOST
from embedded.market.bars import Market
from embedded.yahoo.chart import chart_body
from embedded.yahoo.faults import NO_FAULTS, FaultKind, Faults, TokenBucket
from embedded.yahoo.kept import KeptBodies
from embedded.yahoo.query import ChartError, ChartQuery, parse_query

COOKIE: Final = "A3"
CRUMB: Final = "st0ckFl0w.cr"
KEPT_MIB: Final = 256
_OK: Final = 200
_SHORT_SHARE: Final = 2 / 3
# Yahoo's cookie lasts a year; yfinance stores it with its expiry.
_COOKIE_AGE_S: Final = 365 * 86_400
_OWN_PATHS: Final = frozenset({"/healthz", "/stats", "/stats/reset"})
_KINDS: Final = {"/": "cookie", "/v1/test/getcrumb": "crumb", "/consent": "consent"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Stats(TypedDict):
    """What the server has answered: counts by name."""

    requests: dict[str, int]
    """By kind of path: cookie, crumb, chart, consent, other."""
    statuses: dict[str, int]
    """By HTTP status; a request without a whole answer has none."""
    faults: dict[str, int]
    """By kind of fault; 429 counts those of a storm and of the rate limit too."""
    in_flight: int
    peak_in_flight: int
    rendered: int
    """Charts that were made anew; any other was kept from an earlier answer."""
    first_chart_s: float
    """Reading of this machine's monotonic clock at the first chart of status 200; 0 when there was none."""
    last_chart_s: float
    """At the last one."""


class YahooServer:
    """One market behind Yahoo's paths, with its counters."""

    def __init__(
        self, market: Market, *, faults: Faults = NO_FAULTS, now: datetime | None = None, kept_mib: int = KEPT_MIB
    ) -> None:
        """`now` is the instant at which the server stands, aware; None is two hours after the market's end.

        kept_mib: memory for charts that may be asked for again.
        """
        self.market = market
        self.faults = faults
        self.now = now or market.end + timedelta(hours=2)
        # A few sessions before the first bar: 5d counts sessions, and a market may hold fewer.
        first, last = min(market.days[0], self.now.date()), max(market.days[-1], self.now.date())
        self._sessions = sessions_between(first - timedelta(days=14), last)
        self._by_symbol = {ticker.upper(): ticker for ticker in market.tickers}
        self._bucket = TokenBucket(faults.rate_per_s, time.monotonic)
        self._kept = KeptBodies(kept_mib << 20)
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._in_flight = 0
        self._start_counting()

    def _start_counting(self) -> None:
        self._requests: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._peak_in_flight = self._in_flight
        self._rendered = 0
        self._first_chart_s = self._last_chart_s = 0.0

    def stats(self) -> Stats:
        """The counters so far."""
        return Stats(
            requests=dict(self._requests),
            statuses=dict(self._statuses),
            faults=dict(self._faults),
            in_flight=self._in_flight,
            peak_in_flight=self._peak_in_flight,
            rendered=self._rendered,
            first_chart_s=self._first_chart_s,
            last_chart_s=self._last_chart_s,
        )

    def reset_stats(self) -> Stats:
        """The counters so far, which begin anew. The next faults stay those that the seed draws."""
        stats = self.stats()
        self._start_counting()
        return stats

    async def start(self, port: int = 0) -> tuple[web.AppRunner, str]:
        """Listen on 127.0.0.1; port 0 takes any free one. Returns the runner, to be cleaned up, and the URL.

        Raises OSError when the port is in use.
        """
        app = web.Application(middlewares=[self._account])
        app.add_routes(
            [
                web.get("/", self._cookie),
                web.get("/v1/test/getcrumb", self._crumb),
                web.get("/v8/finance/chart/{symbol}", self._chart),
                web.get("/healthz", self._healthz),
                web.get("/stats", self._stats),
                web.post("/stats/reset", self._reset_stats),
                web.route("*", "/{path:.*}", self._elsewhere),
            ]
        )
        # A client that gives up ends its handler, and so does the end of the server: `hang` waits for either.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, port, backlog=1024).start()
        except OSError:
            await runner.cleanup()
            raise
        return runner, f"http://{HOST}:{runner.addresses[0][1]}"

    @web.middleware
    async def _account(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count a request and hold its answer back for the latency; the server's own paths stay out of it."""
        if request.path in _OWN_PATHS:
            return await handler(request)
        kind = "chart" if request.path.startswith("/v8/finance/chart/") else _KINDS.get(request.path, "other")
        self._requests[kind] += 1
        self._in_flight += 1
        self._peak_in_flight = max(self._peak_in_flight, self._in_flight)
        try:
            if self.faults.latency_ms:
                await asyncio.sleep(self.faults.latency_ms / 1000)
            response = await handler(request)
        finally:
            self._in_flight -= 1
        if not isinstance(response, _Broken):
            self._statuses[str(response.status)] += 1
            if kind == "chart" and response.status == _OK:
                self._last_chart_s = time.monotonic()
                self._first_chart_s = self._first_chart_s or self._last_chart_s
        return response

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "now": self.now.isoformat(), "tickers": len(self.market.tickers)})

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response(self.stats())

    async def _reset_stats(self, request: web.Request) -> web.Response:
        return web.json_response(self.reset_stats())

    async def _cookie(self, request: web.Request) -> web.Response:
        """fc.yahoo.com: an empty page that sets the cookie for all of Yahoo's hosts."""
        response = web.Response(text="", content_type="text/html")
        shared = ".yahoo.com" if request.host.partition(":")[0].endswith(".yahoo.com") else None
        response.set_cookie(COOKIE, "d=stockflow", domain=shared, max_age=_COOKIE_AGE_S, httponly=True)
        return response

    async def _crumb(self, request: web.Request) -> web.Response:
        if COOKIE not in request.cookies:
            return _unauthorized("finance", "Invalid Cookie")
        return web.Response(text=CRUMB)

    async def _elsewhere(self, request: web.Request) -> web.Response:
        return _refusal(404, "finance", "Not Found", f"{request.path} is not part of the embedded Yahoo")

    async def _chart(self, request: web.Request) -> web.StreamResponse:
        if (wait_s := self._bucket.wait_s()) or self.faults.storm:
            return self._too_many(wait_s)
        # Yahoo's chart needs no crumb; one that it did not give out is refused all the same.
        if request.query.get("crumb", CRUMB) != CRUMB:
            return _unauthorized("chart", "Invalid Crumb")
        symbol = request.match_info["symbol"].upper()
        try:
            query = parse_query(request.query)
            self._attempts[symbol, query.span] += 1
            fault = self.faults.draw(symbol, query.span, self._attempts[symbol, query.span])
            if fault is not None:
                return await self._misbehave(fault, request, symbol, query)
            return _json(self._body(symbol, query))
        except ChartError as exc:
            return _json(exc.body(), exc.status)

    def _body(self, symbol: str, query: ChartQuery, kept_share: float = 1.0) -> bytes:
        asked = (symbol, query, kept_share)
        body = self._kept.get(asked)
        if body is None:
            ticker = self._by_symbol.get(symbol)
            bars = self.market.bars[ticker] if ticker is not None else None
            body = chart_body(ticker or symbol, bars, query, self._sessions, self.now, kept_share=kept_share)
            self._rendered += 1
            self._kept.put(asked, body)
        return body

    def _too_many(self, wait_s: float = 0.0) -> web.Response:
        self._faults["429"] += 1
        retry_after_s = max(self.faults.retry_after_s, math.ceil(wait_s))
        return web.Response(status=429, text="Too Many Requests\r\n", headers={"Retry-After": str(retry_after_s)})

    async def _misbehave(
        self, fault: FaultKind, request: web.Request, symbol: str, query: ChartQuery
    ) -> web.StreamResponse:
        if fault == "429":
            return self._too_many()
        body = self._body(symbol, query, _SHORT_SHARE if fault == "short" else 1.0)
        self._faults[fault] += 1
        if fault == "500":
            return web.Response(status=500, text="<html><body>Internal Server Error</body></html>")
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "drop":
            return await _Broken.answer(request, b"", b"")
        half = body[: len(body) // 2]
        if fault == "truncated":
            return await _Broken.answer(request, body, half)
        return _json(half if fault == "malformed" else body)


class _Broken(web.StreamResponse):
    """An answer that ends too early, connection and all."""

    @classmethod
    async def answer(cls, request: web.Request, promised: bytes, sent: bytes) -> _Broken:
        """Promise one body, send another and close; with nothing to send the status line is left out too."""
        response = cls(headers={"Content-Type": "application/json"})
        if sent:
            response.content_length = len(promised)
            await response.prepare(request)
            await response.write(sent)
        if request.transport is not None:
            request.transport.close()
        return response


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json", charset="utf-8")


def _unauthorized(root: str, description: str) -> web.Response:
    return _refusal(401, root, "Unauthorized", description)


def _refusal(status: int, root: str, code: str, description: str) -> web.Response:
    error = {"code": code, "description": description}
    return web.json_response({root: {"result": None, "error": error}}, status=status)

"""A server on this machine that answers Yahoo's paths as a test says, well or badly."""

from __future__ import annotations

import http.server
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from app.ingest.yahoo_session import CHART_PATH

CRUMB_PATH = "/v1/test/getcrumb"
COOKIE = {"Set-Cookie": "A3=d=stockflow; Domain=.yahoo.com; Path=/; Max-Age=31536000"}


@dataclass(frozen=True)
class Asked:
    """One request as it arrived. host: without the port; query: of repeated names the first."""

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    cookie: str


@dataclass(frozen=True)
class Answer:
    """What to answer. ends: how the connection ends before the answer is whole."""

    body: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    ends: Literal["", "drop", "truncated", "hang"] = ""


def chart(ts: list[int], closes: list[float | None], symbol: str = "AAPL") -> str:
    """Yahoo's answer with these bars, each one cent around its close; with what yfinance needs of the meta data."""
    quote: dict[str, list[Any]] = {"close": closes, "open": closes, "volume": [10 * (i + 1) for i in range(len(ts))]}
    quote["high"] = [None if c is None else c + 0.01 for c in closes]
    quote["low"] = [None if c is None else c - 0.01 for c in closes]
    begin, end = (ts[0] // 3600 * 3600, ts[0] // 3600 * 3600 + 23_400) if ts else (0, 23_400)
    period = {"timezone": "EST", "gmtoffset": -18000, "start": begin, "end": end}
    meta = {
        "symbol": symbol,
        "currency": "USD",
        "priceHint": 2,
        "instrumentType": "EQUITY",
        "exchangeTimezoneName": "America/New_York",
        "dataGranularity": "1m",
        "range": "",
        "validRanges": ["1d", "5d"],
        "regularMarketTime": end,
        "currentTradingPeriod": {"pre": period, "regular": period, "post": period},
        "tradingPeriods": [[period]],
    }
    result: dict[str, Any] = {"meta": meta, "indicators": {"quote": [quote if ts else {}]}}
    if ts:
        result["timestamp"] = ts
    return json.dumps({"chart": {"result": [result], "error": None}})


def refusal(code: str, description: str, root: str = "chart") -> str:
    """Yahoo's words for a request that it refuses."""
    return json.dumps({root: {"result": None, "error": {"code": code, "description": description}}})


class LocalYahoo:
    """Answers charts by `chart`, and any path that `pages` names; grants a cookie and a crumb unless told otherwise.

    asked: all requests in the order they arrived.
    """

    def __init__(self) -> None:
        self.chart: Callable[[Asked], Answer] = lambda asked: Answer(status=500)
        self.pages: dict[str, Callable[[Asked], Answer]] = {
            "/": lambda asked: Answer(headers=COOKIE),
            CRUMB_PATH: lambda asked: Answer("cr.umb"),
        }
        self.asked: list[Asked] = []
        self.url = ""
        self.released = threading.Event()
        self._lock = threading.Lock()

    def answer(self, asked: Asked) -> Answer:
        """What the test says; a page that nobody has elsewhere."""
        with self._lock:
            self.asked.append(asked)
            if asked.path.startswith(CHART_PATH):
                return self.chart(asked)
            page = self.pages.get(asked.path)
            return page(asked) if page else Answer("<html>no such page</html>", 404)

    @property
    def charts(self) -> list[Asked]:
        """The requests for charts."""
        return [asked for asked in self.asked if asked.path.startswith(CHART_PATH)]

    @property
    def counts(self) -> Counter[str]:
        """How often each path was asked for."""
        return Counter(asked.path for asked in self.asked)


@contextmanager
def local_yahoo() -> Iterator[LocalYahoo]:
    """Run a LocalYahoo in threads for the length of a `with` block."""
    yahoo = LocalYahoo()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            host = self.headers.get("Host", "").partition(":")[0]
            cookie = self.headers.get("Cookie", "")
            self._send(yahoo.answer(Asked(self.command, host, parts.path, query, cookie)))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.do_GET()

        def log_message(self, *args: object) -> None:
            """Silence: what is not answered is on purpose."""

        def _send(self, answer: Answer) -> None:
            if answer.ends == "hang":
                yahoo.released.wait()
            if answer.ends in ("hang", "drop"):
                return
            body = answer.body.encode()
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if answer.ends == "truncated" else body)

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as server:
        yahoo.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield yahoo
        finally:
            yahoo.released.set()
            server.shutdown()
            thread.join()

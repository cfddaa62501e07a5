"""What one answer costs to parse and to check, whoever fetches it: the part of the floor that is not waiting."""

from __future__ import annotations

import http.client
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, product
from urllib.parse import urlsplit

from app.clock import clock_from_text
from app.ingest.chart import parse_chart
from app.ingest.plan import Plan, Span
from app.ingest.screening import screen
from app.settings import IngestSettings

_MOST_ANSWERS = 200
_AT_ONCE = 16
_WARM_UP = 5
_TIMEOUT_S = 60.0


def parse_ms(url: str, plan: Plan, settings: IngestSettings, now: str) -> float:
    """CPU milliseconds to parse and screen one of the plan's answers: the median over the first 200, in this process.

    Every answer is parsed once; the first few are not counted.
    """
    now_ts = clock_from_text(now)().timestamp()
    sessions = {
        span: tuple(session for session in plan.sessions if span.start_ts <= session.open_ts < span.end_ts)
        for span in plan.spans
    }
    costs_s = []
    answers = _answers(url, plan)
    for ticker, span, body in [*answers[:_WARM_UP], *answers]:
        begun_s = time.process_time()
        screen(parse_chart(body, ticker), sessions[span], now_ts, settings.complete_share)
        costs_s.append(time.process_time() - begun_s)
    return statistics.median(costs_s[_WARM_UP:]) * 1000


def _answers(url: str, plan: Plan) -> list[tuple[str, Span, bytes]]:
    asked = list(islice(product(plan.tickers, plan.spans), _MOST_ANSWERS))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        bodies = pool.map(lambda one: _get(url, chart_path(one[0], one[1].start_ts, one[1].end_ts)), asked)
        return [(ticker, span, body) for (ticker, span), body in zip(asked, bodies, strict=True)]


def _get(url: str, path: str) -> bytes:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def chart_path(ticker: str, start_ts: int, end_ts: int) -> str:
    """The path and query of a request for 1-minute bars; times in epoch seconds."""
    return f"/v8/finance/chart/{ticker}?period1={start_ts}&period2={end_ts}&interval=1m"

"""Charts asked for directly, from a server on this machine that answers as Yahoo does, well or badly."""

from __future__ import annotations

import asyncio
import gzip
import socketserver
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from app.ingest import direct_client
from app.ingest.chart import Delisted, Malformed, NoData, PassingFailure, RateLimited, RawBars, Refused
from app.ingest.counts import FetchCount
from app.ingest.credentials import Credentials
from app.ingest.direct_client import DirectClient
from app.ingest.plan import Span
from app.ingest.yahoo_session import Elsewhere
from tests.fakes import make_sessions
from tests.yahoo_server import COOKIE, CRUMB_PATH, Answer, Asked, LocalYahoo, chart, refusal

(SESSION,) = make_sessions(5)
SPAN = Span(SESSION.open_ts, SESSION.close_ts)
AT = [SESSION.open_ts, SESSION.open_ts + 60, SESSION.open_ts + 240]
BARS = Answer(chart(AT, [100.0, 101.0, None]))


def with_client(
    yahoo: LocalYahoo, use: Callable[[DirectClient], Coroutine[Any, Any, Any]], *, timeout_s: float = 5.0
) -> Any:
    async def run() -> Any:
        async with DirectClient(Elsewhere.at(yahoo.url), in_flight=8, timeout_s=timeout_s) as client:
            return await use(client)

    return asyncio.run(run())


def asked_once(yahoo: LocalYahoo, count: FetchCount | None = None, *, timeout_s: float = 5.0) -> RawBars:
    async def ask(client: DirectClient) -> RawBars:
        return (await client.ask("AAPL", SPAN, count or FetchCount())).read()

    raw: RawBars = with_client(yahoo, ask, timeout_s=timeout_s)
    return raw


def error_of(yahoo: LocalYahoo, answer: Answer, *, timeout_s: float = 5.0) -> Exception:
    yahoo.chart = lambda asked: answer
    with pytest.raises((PassingFailure, Refused, NoData, Delisted)) as caught:
        asked_once(yahoo, timeout_s=timeout_s)
    return caught.value


# --- what is asked and answered ------------------------------------------------------------------


def test_bars_arrive_as_columns(yahoo: LocalYahoo) -> None:
    yahoo.chart = lambda asked: BARS
    raw = asked_once(yahoo)
    assert raw.ts.tolist() == AT
    assert raw.close[:2].tolist() == raw.open[:2].tolist() == [100.0, 101.0]
    assert raw.close[2] != raw.close[2]
    assert (raw.high[:2].tolist(), raw.low[:2].tolist()) == ([100.01, 101.01], [99.99, 100.99])
    assert raw.volume.tolist() == [10, 20, 30]


def test_the_question_is_one_request_to_yahoos_host_for_one_minute_bars_of_the_regular_hours(
    yahoo: LocalYahoo,
) -> None:
    yahoo.chart, count = lambda asked: BARS, FetchCount()
    asked_once(yahoo, count)
    (asked,) = yahoo.charts
    assert (asked.method, asked.host, asked.path) == ("GET", "query2.finance.yahoo.com", "/v8/finance/chart/AAPL")
    question = {name: value for name, value in asked.query.items() if name != "crumb"}
    assert question == {
        "period1": str(SPAN.start_ts),
        "period2": str(SPAN.end_ts),
        "interval": "1m",
        "includePrePost": "false",
    }
    assert count == FetchCount(requests=1)


def test_a_known_ticker_without_bars_has_none(yahoo: LocalYahoo) -> None:
    yahoo.chart = lambda asked: Answer(chart([], []))
    assert len(asked_once(yahoo).ts) == 0


def test_the_connection_is_used_again_and_many_are_open_at_once(yahoo: LocalYahoo) -> None:
    yahoo.chart = lambda asked: Answer(chart(AT, [1.0, 2.0, 3.0], asked.path.rpartition("/")[2]))

    async def ask(client: DirectClient) -> list[RawBars]:
        tickers = [f"T{i}" for i in range(30)]
        replies = await asyncio.gather(*(client.ask(ticker, SPAN, FetchCount()) for ticker in tickers))
        return [reply.read() for reply in replies]

    assert len(with_client(yahoo, ask)) == 30


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(ends="drop"), PassingFailure),
        (Answer(BARS.body, ends="truncated"), PassingFailure),
        (Answer("<html>Internal Server Error</html>", 500), PassingFailure),
        (Answer(BARS.body[:200]), Malformed),
        (Answer(""), Malformed),
        (Answer(chart(AT, [1.0, 2.0, 3.0], "MSFT")), Malformed),
        (Answer("Too Many Requests\r\n", 429), RateLimited),
        (Answer("", 999), RateLimited),
    ],
    ids=["drop", "truncated", "500", "malformed", "empty", "another ticker", "429", "999"],
)
def test_what_may_pass_is_a_passing_failure(yahoo: LocalYahoo, answer: Answer, kind: type[PassingFailure]) -> None:
    error = error_of(yahoo, answer)
    assert type(error) is kind
    assert str(error).startswith("AAPL: ")
    assert "\n" not in str(error)


def test_a_server_that_never_answers_is_given_up_after_the_time_limit(yahoo: LocalYahoo) -> None:
    begun_s = time.monotonic()
    error = error_of(yahoo, Answer(ends="hang"), timeout_s=0.3)
    assert type(error) is PassingFailure
    assert 0.25 < time.monotonic() - begun_s < 3


def test_a_server_that_is_not_there_is_a_passing_failure() -> None:
    yahoo = LocalYahoo()
    yahoo.url = "http://127.0.0.1:9"
    with pytest.raises(PassingFailure, match=r"AAPL: ConnectionError: "):
        asked_once(yahoo)


@pytest.mark.parametrize(("status", "name"), [(429, "RateLimited"), (503, "PassingFailure")])
def test_how_long_a_server_asks_to_wait_is_told(yahoo: LocalYahoo, status: int, name: str) -> None:
    error = error_of(yahoo, Answer("busy", status, {"Retry-After": "7"}))
    assert isinstance(error, PassingFailure)
    assert (type(error).__name__, error.retry_after_s) == (name, 7)


@pytest.mark.parametrize("seconds", [0, 300])
def test_a_server_that_refuses_cookie_or_crumb_may_ask_to_wait_too(yahoo: LocalYahoo, seconds: int) -> None:
    error = error_of(yahoo, Answer(UNAUTHORIZED.body, 401, {"Retry-After": str(seconds)}))
    assert isinstance(error, PassingFailure)
    assert error.retry_after_s == seconds


@contextmanager
def server_of(head: str, body: bytes) -> Iterator[str]:
    """The address of a server that says the same to whatever it is asked, and hangs up."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65_536)
            with suppress(ConnectionError):  # who has read enough hangs up first
                self.request.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + body)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


MIB = 1024 * 1024
PACKED = gzip.compress(bytes(33 * MIB), 1)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (f"Content-Length: {33 * MIB}", b"{"),
        ("Connection: close", bytes(33 * MIB)),
        (f"Content-Encoding: gzip\r\nContent-Length: {len(PACKED)}", PACKED),
    ],
    ids=["told", "untold", "packed"],
)
def test_a_body_of_more_than_32_mib_is_not_read_and_passes(head: str, body: bytes) -> None:
    yahoo = LocalYahoo()
    with server_of(head, body) as yahoo.url, pytest.raises(PassingFailure, match=r"^AAPL: .*file size") as caught:
        asked_once(yahoo)
    assert type(caught.value) is PassingFailure


def test_a_long_body_of_less_is_read(yahoo: LocalYahoo) -> None:
    yahoo.chart = lambda asked: Answer(BARS.body + " " * (31 * MIB))
    assert asked_once(yahoo).ts.tolist() == AT


def test_a_time_before_the_ticker_was_listed_has_no_data(yahoo: LocalYahoo) -> None:
    said = "Data doesn't exist for startDate = 1764599400, endDate = 1764601200"
    error = error_of(yahoo, Answer(refusal("Bad Request", said), 400))
    assert (type(error), str(error)) == (NoData, f"AAPL: {said}")


def test_a_404_with_yahoos_own_words_is_a_delisted_ticker(yahoo: LocalYahoo) -> None:
    body = refusal("Not Found", "No data found, symbol may be delisted")
    error = error_of(yahoo, Answer(body, 404))
    assert (type(error), str(error)) == (Delisted, "AAPL: No data found, symbol may be delisted")


@pytest.mark.parametrize(
    "body", ["<html>404 Not Found</html>", "", "{}", refusal("Not Found", "no such path", root="finance")]
)
def test_a_404_of_a_proxy_is_no_delisted_ticker(yahoo: LocalYahoo, body: str) -> None:
    assert type(error_of(yahoo, Answer(body, 404))) is PassingFailure


def test_a_request_that_yahoo_calls_wrong_is_refused(yahoo: LocalYahoo) -> None:
    body = refusal("Unprocessable Entity", "1m data not available")
    error = error_of(yahoo, Answer(body, 422))
    assert type(error) is Refused
    assert "1m data not available" in str(error)


# --- cookie and crumb ----------------------------------------------------------------------------


class Guarded:
    """Yahoo's chart behind a crumb: grants one crumb after another, and accepts only some."""

    def __init__(self, yahoo: LocalYahoo, granted: list[str], accepted: set[str | None], refused: Answer) -> None:
        self._granted, self._accepted, self._refused = iter(granted), accepted, refused
        yahoo.pages[CRUMB_PATH] = lambda asked: Answer(next(self._granted))
        yahoo.chart = self.chart

    def chart(self, asked: Asked) -> Answer:
        return BARS if asked.query.get("crumb") in self._accepted else self._refused


UNAUTHORIZED = Answer(refusal("Unauthorized", "Invalid Crumb"), 401)


async def rounds(client: DirectClient, times: int, requests: int = 8) -> list[list[str]]:
    """What came of so many requests at once, again and again: `bars` or the name of the error."""
    outcomes = []
    for _ in range(times):
        found = await asyncio.gather(
            *(client.ask("AAPL", SPAN, FetchCount()) for _ in range(requests)), return_exceptions=True
        )
        outcomes.append([type(one).__name__ for one in found])
    return outcomes


def test_who_asks_for_nothing_sends_no_request_at_all(yahoo: LocalYahoo) -> None:
    async def wait(client: DirectClient) -> None:
        await asyncio.sleep(0.3)

    with_client(yahoo, wait)
    assert yahoo.asked == []
    assert "yahoo-credentials" not in {thread.name for thread in threading.enumerate()}


def test_cookie_and_crumb_are_asked_for_once_with_the_first_requests(yahoo: LocalYahoo) -> None:
    Guarded(yahoo, ["cr.umb"], {None, "cr.umb"}, UNAUTHORIZED)

    async def ask(client: DirectClient) -> None:
        await rounds(client, 3)
        for _ in range(100):
            if yahoo.counts[CRUMB_PATH]:
                break
            await asyncio.sleep(0.05)
        await rounds(client, 3)

    with_client(yahoo, ask)
    assert yahoo.counts[CRUMB_PATH] == 1


def test_requests_do_not_wait_for_cookie_and_crumb_and_carry_them_once_they_are_there(yahoo: LocalYahoo) -> None:
    Guarded(yahoo, ["cr.umb"], {None, "cr.umb"}, UNAUTHORIZED)

    async def ask(client: DirectClient) -> None:
        for _ in range(100):
            await client.ask("AAPL", SPAN, FetchCount())
            if "crumb" in yahoo.charts[-1].query:
                return
            await asyncio.sleep(0.05)

    with_client(yahoo, ask)
    assert "crumb" not in yahoo.charts[0].query
    assert yahoo.charts[-1].query["crumb"] == "cr.umb"
    assert yahoo.charts[-1].cookie == "A3=d=stockflow"


def test_who_is_refused_without_a_crumb_waits_for_it(yahoo: LocalYahoo) -> None:
    Guarded(yahoo, ["cr.umb"], {"cr.umb"}, UNAUTHORIZED)
    outcomes = with_client(yahoo, lambda client: rounds(client, 2))
    assert outcomes == [["PassingFailure"] * 8, ["DirectReply"] * 8]
    assert yahoo.counts[CRUMB_PATH] == 1


@pytest.mark.parametrize("status", [401, 403])
def test_of_many_that_are_refused_together_one_asks_for_another_crumb(yahoo: LocalYahoo, status: int) -> None:
    Guarded(yahoo, ["old", "new", "newest"], {"new"}, Answer(UNAUTHORIZED.body, status))
    outcomes = with_client(yahoo, lambda client: rounds(client, 3))
    assert outcomes == [["PassingFailure"] * 8, ["PassingFailure"] * 8, ["DirectReply"] * 8]
    assert yahoo.counts[CRUMB_PATH] == 2
    assert [asked.query.get("crumb") for asked in yahoo.charts] == [None] * 8 + ["old"] * 8 + ["new"] * 8


def test_who_is_refused_says_so(yahoo: LocalYahoo) -> None:
    error = error_of(yahoo, UNAUTHORIZED)
    assert str(error) == "AAPL: Yahoo refused cookie or crumb (401)"


def test_charts_are_read_without_a_server_that_grants_cookies(yahoo: LocalYahoo) -> None:
    yahoo.pages.clear()
    Guarded(yahoo, [], {None}, UNAUTHORIZED)
    yahoo.pages.clear()

    async def ask(client: DirectClient) -> list[list[str]]:
        first = await rounds(client, 1)
        await asyncio.sleep(0.3)  # by now nobody has granted any
        return first + await rounds(client, 1)

    assert with_client(yahoo, ask) == [["DirectReply"] * 8] * 2


def test_a_server_that_hangs_where_cookies_are_granted_holds_nobody_up(yahoo: LocalYahoo) -> None:
    yahoo.pages["/"] = lambda asked: Answer(ends="hang")
    yahoo.chart = lambda asked: BARS
    begun_s = time.monotonic()
    with_client(yahoo, lambda client: rounds(client, 2))
    assert time.monotonic() - begun_s < 3


def test_a_consent_page_is_consented_to_and_the_chart_asked_for_again(yahoo: LocalYahoo) -> None:
    consented = {"Set-Cookie": COOKIE["Set-Cookie"].replace("d=stockflow", "d=consented")}
    form = '<form><input name="csrfToken" value="t"><input name="sessionId" value="s"></form>'
    here = yahoo.url.rpartition(":")[2]
    yahoo.pages |= {
        "/consent": lambda asked: Answer(form),
        "/v2/collectConsent": lambda asked: Answer("thanks" if asked.method == "POST" else form),
        "/copyConsent": lambda asked: Answer("copied", headers=consented),
    }
    to_consent = {"Location": f"http://consent.yahoo.com:{here}/v2/collectConsent?sessionId=s"}
    yahoo.chart = lambda asked: BARS if "d=consented" in asked.cookie else Answer("", 302, to_consent)
    outcomes = with_client(yahoo, lambda client: rounds(client, 3))
    assert outcomes == [["PassingFailure"] * 8, ["PassingFailure"] * 8, ["DirectReply"] * 8]


def test_a_bug_while_credentials_are_obtained_holds_nobody_up(
    yahoo: LocalYahoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> Credentials:
        raise RuntimeError("a bug")

    told = list[str]()
    monkeypatch.setattr(direct_client, "obtain", broken)
    monkeypatch.setattr(threading, "excepthook", lambda hooked: told.append(str(hooked.exc_value)))
    yahoo.chart = lambda asked: UNAUTHORIZED
    begun_s = time.monotonic()
    assert with_client(yahoo, lambda client: asyncio.wait_for(rounds(client, 2), 5)) == [["PassingFailure"] * 8] * 2
    assert time.monotonic() - begun_s < 3
    assert set(told) == {"a bug"}


def test_a_client_that_is_done_does_not_wait_for_credentials(yahoo: LocalYahoo) -> None:
    yahoo.pages["/"] = lambda asked: Answer(ends="hang")
    yahoo.chart = lambda asked: BARS
    begun_s = time.monotonic()
    asked_once(yahoo)
    assert time.monotonic() - begun_s < 3

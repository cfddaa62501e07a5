"""Charts through unmodified yfinance, over a transport that answers from a script."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pandas as pd
import pytest
from curl_cffi import requests
from curl_cffi.requests.exceptions import Timeout

from app.ingest import yfinance_client
from app.ingest.chart import Delisted, Malformed, NoData, PassingFailure, RateLimited, RawBars, Refused, parse_chart
from app.ingest.counts import FetchCount
from app.ingest.plan import Span
from app.ingest.yahoo_session import CHART_PATH, Elsewhere, YahooSession
from app.ingest.yfinance_client import YFinanceClient, raw_bars_of
from tests.fakes import make_sessions
from tests.yahoo_server import Answer, chart, refusal

(SESSION,) = make_sessions(5)
SPAN = Span(SESSION.open_ts, SESSION.close_ts)
AT = [SESSION.open_ts, SESSION.open_ts + 60, SESSION.open_ts + 240]
BARS = Answer(chart(AT, [100.0, 101.0, 100.5]))


class Transport(requests.Session[requests.Response]):
    """Where requests end: chart answers come from a script, the last one for ever; an exception in it is raised.

    urls: of all requests.
    """

    script: deque[Answer | Exception]
    urls: list[str]

    def request(self, method: Any, url: str, *args: Any, **options: Any) -> requests.Response:
        """The next answer; a cookie and a crumb are always granted."""
        answer: Answer | Exception = Answer("cr.umb")
        self.urls.append(url)
        if CHART_PATH in url:
            answer = self.script.popleft() if len(self.script) > 1 else self.script[0]
        if isinstance(answer, Exception):
            raise answer
        response = requests.Response()
        response.url, response.status_code, response.content = url, answer.status, answer.body.encode()
        response.headers.update(dict(answer.headers))
        return response


class ScriptedYahoo(YahooSession, Transport):
    """The session of the ingest, on the scripted transport."""

    def __init__(self, *script: Answer | Exception) -> None:
        super().__init__()
        self.script, self.urls = deque(script), []


@pytest.fixture(autouse=True)
def _yfinance_that_remembers_nothing(yahoo: object) -> None:
    """The fixture's server is not asked: the transport is scripted."""


def ask(session: ScriptedYahoo, monkeypatch: pytest.MonkeyPatch, count: FetchCount | None = None) -> RawBars:
    monkeypatch.setattr(yfinance_client, "YahooSession", lambda elsewhere: session)

    async def run() -> RawBars:
        async with YFinanceClient(Elsewhere(), in_flight=2, timeout_s=5) as client:
            return (await client.ask("AAPL", SPAN, count or FetchCount())).read()

    return asyncio.run(run())


def error_of(monkeypatch: pytest.MonkeyPatch, *script: Answer | Exception) -> Exception:
    with pytest.raises((PassingFailure, Refused, NoData, Delisted)) as caught:
        ask(ScriptedYahoo(*script), monkeypatch)
    return caught.value


def test_bars_are_the_same_as_those_that_are_read_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, direct = ask(ScriptedYahoo(BARS), monkeypatch), parse_chart(BARS.body.encode(), "AAPL")
    for name in ("ts", "open", "high", "low", "close", "volume"):
        assert getattr(raw, name).tolist() == getattr(direct, name).tolist()
        assert getattr(raw, name).dtype == getattr(direct, name).dtype


def test_every_request_is_counted_and_none_is_for_the_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    count, session = FetchCount(), ScriptedYahoo(BARS)
    ask(session, monkeypatch, count)
    assert sum(CHART_PATH in url for url in session.urls) == 1
    assert count == FetchCount(requests=len(session.urls))
    ask(session, monkeypatch, count)
    assert count.requests == len(session.urls)
    assert CHART_PATH in session.urls[-1]


def test_a_known_symbol_without_bars_is_empty_and_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(ask(ScriptedYahoo(Answer(chart([], []))), monkeypatch).ts) == 0


def test_a_404_with_yahoos_own_words_is_a_delisted_ticker(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Answer(refusal("Not Found", "No data found, symbol may be delisted"), 404)
    error = error_of(monkeypatch, gone)
    assert (type(error), str(error)) == (Delisted, "AAPL: No data found, symbol may be delisted")


def test_a_404_of_a_proxy_is_no_delisted_ticker(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(error_of(monkeypatch, Answer("<html>404 Not Found</html>", 404))) is PassingFailure


def test_a_request_that_yahoo_calls_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Answer(refusal("Unprocessable Entity", "1m data not available"), 422)
    assert type(error_of(monkeypatch, wrong)) is Refused


def test_a_time_before_the_ticker_was_listed_has_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Data doesn't exist for startDate = 1764599400, endDate = 1764601200"
    error = error_of(monkeypatch, Answer(refusal("Bad Request", said), 400))
    assert (type(error), str(error)) == (NoData, f"AAPL: {said}")


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Answer("Internal Server Error", 500), PassingFailure),
        (Answer('{"chart": {"resu'), Malformed),
        (Answer('{"chart": {"result": [{}], "error": null}}'), Malformed),
        (Answer('{"chart": {"result": null, "error": null}}'), Malformed),
        (Answer(""), Malformed),
        (Timeout("timed out"), PassingFailure),
    ],
    ids=["500", "cut off", "nonsense", "nothing", "empty", "timeout"],
)
def test_what_yfinance_takes_for_a_delisted_ticker_is_told_apart_by_what_was_really_sent(
    monkeypatch: pytest.MonkeyPatch, failure: Answer | Exception, kind: type[PassingFailure]
) -> None:
    error = error_of(monkeypatch, failure)
    assert type(error) is kind
    assert str(error).startswith("AAPL: ")


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("7200", 7200), ("nonsense", 0), ("", 0)])
def test_a_429_tells_how_long_it_asks_to_wait(monkeypatch: pytest.MonkeyPatch, header: str, seconds: float) -> None:
    error = error_of(monkeypatch, Answer("Too Many Requests", 429, {"Retry-After": header} if header else {}))
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == seconds


def test_a_failing_server_tells_how_long_it_asks_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    error = error_of(monkeypatch, Answer("busy", 503, {"Retry-After": "300"}))
    assert isinstance(error, PassingFailure)
    assert (type(error), error.retry_after_s) == (PassingFailure, 300)


def test_a_failed_answer_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    session = ScriptedYahoo(Answer('{"chart": {"resu'), BARS)
    with pytest.raises(Malformed):
        ask(session, monkeypatch)
    assert ask(session, monkeypatch).close.tolist() == [100.0, 101.0, 100.5]


# --- frames --------------------------------------------------------------------------------------


def frame(ts: list[int], unit: str = "s") -> pd.DataFrame:
    columns = {name: [1.0] * len(ts) for name in ("Open", "High", "Low", "Close", "Volume")}
    index = pd.DatetimeIndex(pd.to_datetime(ts, unit="s", utc=True).tz_convert("America/New_York")).as_unit(unit)
    return pd.DataFrame(columns, index=index)


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
def test_a_frame_becomes_columns_whatever_the_unit_of_its_index(unit: str) -> None:
    raw = raw_bars_of("X", frame(AT, unit))
    assert raw.ts.tolist() == AT
    assert raw.volume.tolist() == [1.0] * 3


def test_a_frame_without_a_column_is_refused() -> None:
    with pytest.raises(Malformed, match="X: the answer lacks Close, Volume"):
        raw_bars_of("X", frame(AT).drop(columns=["Volume", "Close"]))

"""Unmodified yfinance against the embedded Yahoo: real HTTP, real parsing."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import yfinance
from curl_cffi import requests
from yfinance.cache import get_cookie_cache
from yfinance.data import SingletonMeta, YfData
from yfinance.exceptions import YFPricesMissingError, YFRateLimitError, YFTzMissingError

from app.errors import SettingsError
from app.ingest.ticker_bars import TickerBars
from embedded.market.bars import Market, read_bars_file
from embedded.market.simulated import SimulatedMarket, simulate
from embedded.yahoo.__main__ import main
from embedded.yahoo.faults import KINDS, FaultKind, Faults, TokenBucket
from embedded.yahoo.running import RunningServer, running_server
from embedded.yahoo.server import CRUMB

NEW_YORK = ZoneInfo("America/New_York")
MONDAY, SATURDAY, LAST_DAY = date(2025, 12, 1), date(2025, 12, 6), date(2025, 12, 5)
HALF_DAY = date(2025, 11, 28)
DAY_S = 86_400


class HereSession(requests.Session[requests.Response]):
    """Sends every request to one address, with its path and query; the host is the server's."""

    def __init__(self, url: str) -> None:
        """`url` is the server's."""
        super().__init__(impersonate="chrome")
        self._url = url

    def request(self, method: Any, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        """Send it there."""
        parts = urlsplit(url)
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        return super().request(method, self._url + path, *args, **kwargs)


class ProxySession(requests.Session[requests.Response]):
    """Sends every request to one address as to a proxy: the request line and the host are Yahoo's."""

    def __init__(self, url: str) -> None:
        """`url` is the server's."""
        super().__init__(impersonate="chrome", proxies={"http": url})

    def request(self, method: Any, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        """Send it there; in plain HTTP, which a proxy can answer."""
        return super().request(method, url.replace("https://", "http://", 1), *args, **kwargs)


@pytest.fixture(scope="module")
def market() -> Market:
    return simulate(SimulatedMarket(tickers=3))


@pytest.fixture(scope="module", autouse=True)
def _yfinance_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yfinance.set_tz_cache_location(str(tmp_path_factory.mktemp("yfinance")))
    yfinance.config.debug.hide_exceptions = False
    yield
    yfinance.config.debug.hide_exceptions = True


@pytest.fixture(autouse=True)
def _fresh_yfinance() -> None:
    # One process-wide session, crumb and response cache and one stored cookie: a test must not see another's.
    SingletonMeta._instances.pop(YfData, None)
    get_cookie_cache().store("curlCffi", None)
    YfData.cache_get.cache_clear()


def history(server: RunningServer, ticker: str, start: date, end: date, **options: Any) -> Any:
    """1-minute bars as yfinance returns them; `end` is excluded."""
    session = options.pop("session", None) or ProxySession(server.url)
    return yfinance.Ticker(ticker, session=session).history(
        start=start, end=end, interval="1m", auto_adjust=False, **options
    )


def epoch_s(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).timestamp())


def of_days(bars: TickerBars, start: date, end: date) -> TickerBars:
    return bars.between(epoch_s(start), epoch_s(end))


def assert_equal(frame: Any, bars: TickerBars) -> None:
    assert (
        frame.index.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[s]").astype("int64")
    ).tolist() == bars.ts.tolist()
    for name in ("Open", "High", "Low", "Close", "Volume"):
        assert np.array_equal(frame[name].to_numpy(), getattr(bars, name.lower())), name


class Answer(NamedTuple):
    """A raw answer: status, headers in lower case, body."""

    status: int
    headers: dict[str, str]
    text: str


def get(server: RunningServer, path: str, **headers: str) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode())
    finally:
        connection.close()


def chart_path(ticker: str, start: date = MONDAY, end: date = SATURDAY, extra: str = "") -> str:
    return f"/v8/finance/chart/{ticker}?period1={epoch_s(start)}&period2={epoch_s(end)}&interval=1m{extra}"


# --- bars -----------------------------------------------------------------------------------------


def test_bars_arrive_identical_in_every_minute_of_every_day(market: Market) -> None:
    weeks = [
        (date(2025, 11, 19), date(2025, 11, 26)),
        (date(2025, 11, 26), date(2025, 12, 3)),
        (date(2025, 12, 3), SATURDAY),
    ]
    with running_server(market) as server:
        for ticker in market.tickers:
            arrived = 0
            for start, end in weeks:
                frame = history(server, ticker, start, end)
                assert_equal(frame, of_days(market.bars[ticker], start, end))
                arrived += len(frame)
            assert arrived == len(market.bars[ticker])
            assert frame.index[-1].isoformat() == "2025-12-05T15:59:00-05:00"


def test_real_bars_arrive_identical_in_summer_time(real_bars_path: Path) -> None:
    market = read_bars_file(real_bars_path)
    with running_server(market) as server:
        for start, end in ((date(2026, 3, 12), date(2026, 3, 19)), (date(2026, 3, 19), date(2026, 3, 25))):
            assert_equal(history(server, "AAPL", start, end), of_days(market.bars["AAPL"], start, end))


def test_a_half_day_ends_at_one_o_clock(market: Market) -> None:
    with running_server(market) as server:
        frame = history(server, "SIM001", HALF_DAY, HALF_DAY + timedelta(days=1))
        periods = json.loads(get(server, chart_path("SIM001", HALF_DAY, HALF_DAY + timedelta(days=2))).text)
    assert frame.index[-1].isoformat() == "2025-11-28T12:59:00-05:00"
    (period,) = periods["chart"]["result"][0]["meta"]["tradingPeriods"]
    assert period[0]["end"] - period[0]["start"] == 210 * 60
    assert (period[0]["timezone"], period[0]["gmtoffset"]) == ("EST", -5 * 3600)


def test_a_range_in_days_counts_sessions(market: Market) -> None:
    with running_server(market) as server:
        session = ProxySession(server.url)
        five = yfinance.Ticker("SIM002", session=session).history(period="5d", interval="1m")
        daily = yfinance.Ticker("SIM002", session=session).history(period="5d", interval="1d")
    assert len(five) == len(of_days(market.bars["SIM002"], MONDAY, SATURDAY))
    last = of_days(market.bars["SIM002"], LAST_DAY, SATURDAY)
    assert len(daily) == 5
    assert daily.iloc[-1][["Open", "High", "Low", "Close", "Volume"]].tolist() == [
        last.open[0],
        last.high.max(),
        last.low.min(),
        last.close[-1],
        last.volume.sum(),
    ]


def test_hours_around_the_session_can_be_asked_for(market: Market) -> None:
    with running_server(market) as server:
        frame = history(server, "SIM001", LAST_DAY, SATURDAY, prepost=True)
    assert_equal(frame, of_days(market.bars["SIM001"], LAST_DAY, SATURDAY))


def test_only_minutes_that_ended_by_now_are_shown(market: Market) -> None:
    now = datetime(2025, 12, 3, 15, 0, 30, tzinfo=UTC)
    with running_server(market, now=now) as server:
        frame = history(server, "SIM001", MONDAY, SATURDAY)
        result = json.loads(get(server, "/v8/finance/chart/SIM001?range=1d&interval=1d").text)["chart"]["result"][0]
    bars = of_days(market.bars["SIM001"], MONDAY, SATURDAY)
    assert_equal(frame, bars.between(0, int(datetime(2025, 12, 3, 15, 0, tzinfo=UTC).timestamp())))
    assert frame.index[-1].tz_convert("UTC").isoformat() == "2025-12-03T14:59:00+00:00"
    assert result["meta"]["regularMarketTime"] == int(now.timestamp()) - 30
    assert result["meta"]["currentTradingPeriod"]["regular"]["start"] == result["timestamp"][0]


def test_the_meta_data_are_those_that_yfinance_reads(market: Market) -> None:
    with running_server(market) as server:
        meta = json.loads(get(server, chart_path("SIM001")).text)["chart"]["result"][0]["meta"]
    assert {
        "currency": "USD",
        "symbol": "SIM001",
        "instrumentType": "EQUITY",
        "dataGranularity": "1m",
    }.items() <= meta.items()
    assert meta["exchangeTimezoneName"] == "America/New_York"
    assert len(meta["tradingPeriods"]) == 5
    assert "5d" in meta["validRanges"]
    assert meta["firstTradeDate"] == int(market.bars["SIM001"].ts[0])


# --- refusals -------------------------------------------------------------------------------------


def test_an_unknown_ticker_is_an_error(market: Market) -> None:
    with running_server(market) as server:
        # The first two of a process end where yfinance looks for the time zone elsewhere.
        with pytest.raises((YFTzMissingError, requests.exceptions.HTTPError)):
            history(server, "NOPE", MONDAY, SATURDAY)
        answer = get(server, chart_path("NOPE"))
    assert answer.status == 404
    assert json.loads(answer.text) == {
        "chart": {
            "result": None,
            "error": {"code": "Not Found", "description": "No data found, symbol may be delisted"},
        }
    }


def test_more_than_eight_days_of_minutes_are_refused(market: Market) -> None:
    with running_server(market) as server:
        with pytest.raises(YFPricesMissingError, match="Only 8 days worth of 1m granularity data are allowed"):
            history(server, "SIM001", date(2025, 11, 27), SATURDAY)
        assert get(server, chart_path("SIM001", date(2025, 11, 28))).status == 200
        assert get(server, chart_path("SIM001", date(2025, 11, 27))).status == 422
        assert get(server, "/v8/finance/chart/SIM001?range=1mo&interval=1m").status == 422


def test_minutes_older_than_thirty_days_are_refused(market: Market) -> None:
    with running_server(market) as server:
        with pytest.raises(YFPricesMissingError, match="must be within the last 30 days"):
            history(server, "SIM001", date(2025, 11, 3), date(2025, 11, 7))
        now_s = int(server.now.timestamp())
        for age_s, status in ((30 * DAY_S, 200), (30 * DAY_S + 1, 422)):
            path = f"/v8/finance/chart/SIM001?period1={now_s - age_s}&period2={now_s - 25 * DAY_S}&interval=1m"
            assert get(server, path).status == status


def test_a_range_without_bars_has_meta_data_alone(market: Market) -> None:
    with running_server(market) as server:
        with pytest.raises(YFPricesMissingError, match="no price data found"):
            history(server, "SIM001", SATURDAY, date(2025, 12, 8))
        answer = get(server, chart_path("SIM001", SATURDAY, date(2025, 12, 8)))
    result = json.loads(answer.text)["chart"]["result"][0]
    assert answer.status == 200
    assert result["meta"]["symbol"] == "SIM001"
    assert "timestamp" not in result
    assert result["indicators"] == {"quote": [{}]}


@pytest.mark.parametrize(
    "query",
    ["interval=7m&range=1d", "interval=1m&range=3d", "interval=1m&period1=0", "interval=1m&period1=a&period2=b",
     "interval=1m&period1=1764651600&period2=1764565200"],
)  # fmt: skip
def test_wrong_parameters_are_a_bad_request(market: Market, query: str) -> None:
    with running_server(market) as server:
        answer = get(server, f"/v8/finance/chart/SIM001?{query}")
    assert answer.status == 400
    assert json.loads(answer.text)["chart"]["error"]["code"] == "Bad Request"


# --- cookie, crumb, counters ----------------------------------------------------------------------


def test_a_crumb_needs_the_cookie_and_a_chart_needs_no_crumb_but_a_right_one(market: Market) -> None:
    with running_server(market) as server:
        cookie = get(server, "/", Host="fc.yahoo.com").headers["set-cookie"]
        assert "Domain=.yahoo.com" in cookie
        assert "Domain" not in get(server, "/").headers["set-cookie"]
        without = get(server, "/v1/test/getcrumb")
        assert (without.status, "<html>" in without.text) == (401, False)
        assert get(server, "/v1/test/getcrumb", Cookie=cookie.partition(";")[0]).text == CRUMB
        assert get(server, chart_path("SIM001", extra=f"&crumb={CRUMB}")).status == 200
        assert get(server, chart_path("SIM001")).status == 200
        wrong = get(server, chart_path("SIM001", extra="&crumb=wrong"))
    assert wrong.status == 401
    assert json.loads(wrong.text)["chart"]["error"] == {"code": "Unauthorized", "description": "Invalid Crumb"}


@pytest.mark.parametrize("session_type", [HereSession, ProxySession])
def test_requests_may_name_any_host(market: Market, session_type: Callable[[str], Any]) -> None:
    with running_server(market) as server:
        frame = history(server, "SIM001", MONDAY, SATURDAY, session=session_type(server.url))
        assert len(frame) == len(of_days(market.bars["SIM001"], MONDAY, SATURDAY))
        assert get(server, chart_path("SIM001"), Host="query2.finance.yahoo.com").status == 200
        assert get(server, "http://query2.finance.yahoo.com" + chart_path("SIM001")).status == 200


def test_yfinance_asks_for_the_cookie_and_the_crumb_once_if_the_host_stays_yahoos(market: Market) -> None:
    with running_server(market) as server:
        session = ProxySession(server.url)
        for ticker in market.tickers:
            history(server, ticker, MONDAY, SATURDAY, session=session)
        asked = server.stats()["requests"]
    assert (asked["cookie"], asked["crumb"]) == (1, 1)
    assert asked["chart"] >= len(market.tickers)


def test_stats_count_yahoos_requests_and_not_themselves(market: Market) -> None:
    with running_server(market) as server:
        for path in (
            "/",
            chart_path("SIM001"),
            chart_path("NOPE"),
            "/v10/finance/quoteSummary/X",
            "/healthz",
            "/stats",
        ):
            get(server, path)
        assert json.loads(get(server, "/stats").text) == server.stats()
        assert {
            "requests": {"cookie": 1, "chart": 2, "other": 1},
            "statuses": {"200": 2, "404": 2},
            "faults": {},
            "in_flight": 0,
            "peak_in_flight": 1,
            "rendered": 1,
        }.items() <= server.stats().items()


def test_latency_is_honoured_and_requests_wait_side_by_side(market: Market) -> None:
    with running_server(market, faults=Faults(latency_ms=200)) as server, ThreadPoolExecutor(8) as pool:
        begun = time.perf_counter()
        answers = list(pool.map(lambda _: get(server, chart_path("SIM001")), range(8)))
        took_s = time.perf_counter() - begun
        assert [answer.status for answer in answers] == [200] * 8
        assert 0.2 <= took_s < 1.4  # one after the other they take 1.6 s
        assert server.stats()["peak_in_flight"] == 8


# --- faults ---------------------------------------------------------------------------------------


def test_a_storm_is_a_rate_limit_error(market: Market) -> None:
    with running_server(market, faults=Faults(storm=True, retry_after_s=7)) as server:
        with pytest.raises(YFRateLimitError):
            history(server, "SIM001", MONDAY, SATURDAY)
        answer = get(server, chart_path("SIM001"))
        assert (answer.status, answer.headers["retry-after"]) == (429, "7")
        assert server.stats()["faults"] == {"429": server.stats()["requests"]["chart"]}


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("429", YFRateLimitError),
        ("500", json.JSONDecodeError),
        ("drop", requests.exceptions.ConnectionError),
        ("truncated", requests.exceptions.IncompleteRead),
        ("malformed", json.JSONDecodeError),
        ("hang", requests.exceptions.Timeout),
    ],
)
def test_each_fault_looks_to_yfinance_as_it_does_at_yahoo(market: Market, kind: Any, error: type[Exception]) -> None:
    with running_server(market) as well:
        history(well, "SIM001", MONDAY, SATURDAY)  # its time zone is known from here on
        with running_server(market, faults=Faults(share=1.0, kinds=(kind,))) as server:
            with pytest.raises(error):
                history(server, "SIM001", MONDAY, LAST_DAY, timeout=0.5)
            assert server.stats()["faults"][kind] >= 1


def test_a_short_answer_lacks_the_last_third(market: Market) -> None:
    with running_server(market, faults=Faults(share=1.0, kinds=("short",))) as server:
        frame = history(server, "SIM001", MONDAY, SATURDAY)
    bars = of_days(market.bars["SIM001"], MONDAY, SATURDAY)
    assert_equal(frame, bars.part(slice(0, -(-len(bars) * 2 // 3))))


def test_retries_get_all_bars_in_the_end(market: Market) -> None:
    kinds: tuple[FaultKind, ...] = ("429", "500", "drop", "truncated", "malformed")
    with running_server(market, faults=Faults(share=0.5, kinds=kinds, seed=3)) as server:
        for ticker in market.tickers:
            for _attempt in range(20):
                YfData.cache_get.cache_clear()
                try:
                    frame = history(server, ticker, MONDAY, SATURDAY, timeout=2)
                    break
                except (YFRateLimitError, requests.exceptions.RequestException, ValueError):
                    continue
            assert_equal(frame, of_days(market.bars[ticker], MONDAY, SATURDAY))
        assert sum(server.stats()["faults"].values()) > 0


def test_a_fault_is_a_function_of_seed_symbol_span_and_attempt() -> None:
    faults = Faults(share=0.3, seed=1)
    draws = [faults.draw("AAPL", "1m:0-1", attempt) for attempt in range(1, 4001)]
    assert draws == [faults.draw("AAPL", "1m:0-1", attempt) for attempt in range(1, 4001)]
    assert draws != [Faults(share=0.3, seed=2).draw("AAPL", "1m:0-1", attempt) for attempt in range(1, 4001)]
    assert draws != [faults.draw("MSFT", "1m:0-1", attempt) for attempt in range(1, 4001)]
    assert sum(draw is not None for draw in draws) == pytest.approx(1200, abs=120)
    assert {draw for draw in draws if draw is not None} == set(KINDS)
    assert Faults().draw("AAPL", "1m:0-1", 1) is None


@pytest.mark.parametrize("wrong", [{"share": 1.1}, {"kinds": ("429", "fire")}, {"kinds": ()}, {"latency_ms": -1}])
def test_wrong_faults_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Faults(**wrong)


def test_a_bucket_lets_a_second_s_worth_through_at_once_and_then_the_rate() -> None:
    now_s = 100.0
    bucket = TokenBucket(4.0, lambda: now_s)
    assert [bucket.wait_s() for _ in range(5)] == [0, 0, 0, 0, 0.25]
    now_s += 0.5
    assert [bucket.wait_s() for _ in range(3)] == [0, 0, 0.25]
    now_s += 60
    assert [bucket.wait_s() for _ in range(5)] == [0, 0, 0, 0, 0.25]


def test_requests_above_the_rate_are_told_when_to_come_back(market: Market) -> None:
    with running_server(market, faults=Faults(rate_per_s=0.5)) as server:
        assert get(server, chart_path("SIM001")).status == 200
        answer = get(server, chart_path("SIM001"))
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")


# --- the process ----------------------------------------------------------------------------------


def test_the_process_says_where_it_is_and_ends_on_a_signal() -> None:
    command = [sys.executable, "-m", "embedded.yahoo", "--sim", "tickers=2", "--sim", "sessions=2", "--latency-ms", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        ready = json.loads(process.stdout.readline())
        assert ready["tickers"] == ["SIM001", "SIM002"]
        assert ready["days"] == ["2025-12-04", "2025-12-05"]
        assert ready["now"] == "2025-12-05T23:00:00+00:00"
        connection = http.client.HTTPConnection(urlsplit(ready["url"]).netloc, timeout=5)
        connection.request("GET", "/healthz")  # kept open: an idle client must not hold up the end
        assert json.loads(connection.getresponse().read())["status"] == "ok"
        begun = time.perf_counter()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(5) == 0
        assert time.perf_counter() - begun < 1
        assert process.stderr.read() == ""
        connection.close()


def test_a_port_in_use_is_one_line_and_exit_10(taken_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sim", "tickers=1", "--sim", "sessions=1", "--port", str(taken_port)]) == 10
    out, err = capsys.readouterr()
    assert err == f"embedded Yahoo: port {taken_port} is in use: choose another with --port, or 0 for any free one\n"
    assert out == ""


def test_bad_bars_and_wrong_flags_are_one_line_and_their_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "absent.parquet"
    assert main(["--market", str(absent)]) == 6
    assert capsys.readouterr().err == f"embedded Yahoo: {absent}: there is no such file\n"
    for wrong, part in (
        (["--sim", "ticker=3"], "unknown setting"),
        (["--market", "x.parquet", "--sim", "tickers=3"], "is a setting of --market simulated"),
        (["--now", "2025-12-05"], "names no time zone"),
        (["--fault-share", "2"], "is not within 0..1"),
        (["--fault-kinds", "fire"], "unknown kinds of fault"),
    ):
        assert main(["--sim", "tickers=1", *wrong] if wrong[0] != "--market" else wrong) == 2
        err = capsys.readouterr().err
        assert part in err
        assert err.count("\n") == 1

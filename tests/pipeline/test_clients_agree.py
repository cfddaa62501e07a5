"""Both clients over the same Yahoo: the same bars, to the bit, on every kind of day that the calendar has."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import yfinance
from curl_cffi import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from yfinance.data import SingletonMeta, YfData

from app import contract
from app.clock import fixed_clock
from app.ingest.chart import RawBars, parse_chart
from app.ingest.collect import Collected, collect_shard
from app.ingest.counts import FetchCount
from app.ingest.credentials import prepare_yfinance
from app.ingest.plan import Span, make_plan
from app.ingest.screening import Screened, screen
from app.ingest.ticker_bars import NO_BARS, TickerBars
from app.ingest.yahoo_session import CHART_PATH, Elsewhere, YahooSession
from app.ingest.yfinance_client import YFinanceClient
from app.sessions import Session, closed_sessions, recent_sessions, sessions_between, utc
from app.settings import IngestSettings
from embedded.market.bars import Market, read_bars_file
from embedded.market.simulated import SimulatedMarket, simulate
from embedded.yahoo.chart import chart_body
from embedded.yahoo.faults import NO_FAULTS, Faults
from embedded.yahoo.query import ChartQuery
from embedded.yahoo.running import running_server

NEW_YORK = ZoneInfo(contract.EXCHANGE_TIMEZONE)
Client = Literal["direct", "yfinance"]
BOTH: tuple[Client, Client] = ("direct", "yfinance")


@pytest.fixture(scope="module", autouse=True)
def _prepared_yfinance() -> Iterator[None]:
    """As the ingest prepares it, whatever another module's tests made of it."""
    prepare_yfinance.cache_clear()
    prepare_yfinance()
    yield
    yfinance.config.debug.hide_exceptions = True


@pytest.fixture(autouse=True)
def _fresh_yfinance() -> None:
    # One process-wide session and response cache: a test must not see another's.
    SingletonMeta._instances.pop(YfData, None)
    YfData.cache_get.cache_clear()


def collected(
    market: Market, sessions: Sequence[Session], now: datetime, client: Client, faults: Faults = NO_FAULTS
) -> dict[str, Collected]:
    """What a client gets of a market's tickers and of one that Yahoo does not know."""
    plan = make_plan("agree", [*market.tickers, "GONE"], sessions, shards=1, request_days=7)
    wanted = IngestSettings(client=client, in_flight=8, backoff_s=0.0, rate_per_s=0.0, attempts=10)
    with running_server(market, now=now, faults=faults) as yahoo:
        found = collect_shard(plan, plan.shards[0], wanted, yahoo_url=yahoo.url, clock=fixed_clock(now))
        for thread in threading.enumerate():
            if (
                thread.name == "yahoo-credentials"
            ):  # yfinance's session is one a process: the next client's from here on
                thread.join()
    return found


def assert_both_get_all(
    market: Market, sessions: Sequence[Session], now: datetime, faults: Faults = NO_FAULTS
) -> tuple[dict[str, Collected], dict[str, Collected]]:
    """Every bar of the sessions that has ended, from both clients, which also say the same of each day."""
    direct, plain = (collected(market, sessions, now, client, faults) for client in BOTH)
    ended_s = int(now.timestamp()) - contract.BAR_S + 1
    for ticker in market.tickers:
        expected = inside(market.bars[ticker].between(0, ended_s), sessions)
        assert direct[ticker].bars.same_as(expected), ticker
        assert plain[ticker].bars.same_as(expected), ticker
        assert direct[ticker].answers == plain[ticker].answers
        ours, theirs = direct[ticker].report, plain[ticker].report
        assert (ours.status, ours.days, ours.rows, ours.gaps) == (theirs.status, theirs.days, theirs.rows, theirs.gaps)
    assert [found["GONE"].report.status for found in (direct, plain)] == ["delisted"] * 2
    assert direct["GONE"].report.error == plain["GONE"].report.error
    return direct, plain


def inside(bars: TickerBars, sessions: Sequence[Session]) -> TickerBars:
    held = [(bars.ts >= session.open_ts) & (bars.ts < session.close_ts) for session in sessions]
    return bars.part(np.logical_or.reduce(held))


def simulated(last_day: date, sessions: int, tickers: int = 3) -> Market:
    return simulate(SimulatedMarket(tickers=tickers, sessions=sessions, last_day=last_day))


def local_time(ts: int) -> str:
    return utc(ts).astimezone(NEW_YORK).strftime("%H:%M")


def test_both_get_every_bar_of_two_weeks_with_a_half_day_and_a_holiday() -> None:
    market = simulated(date(2025, 12, 5), 10)
    now = market.end + timedelta(hours=2)
    sessions = closed_sessions(now, 30)[-10:]
    assert [session.minutes for session in sessions].count(210) == 1
    assert_both_get_all(market, sessions, now)


def test_the_last_session_is_whole_at_the_very_moment_it_closes_on_a_half_day_too() -> None:
    for day, close in ((date(2025, 12, 24), "13:00"), (date(2025, 12, 23), "16:00")):
        market = simulated(day, 3)
        last = sessions_between(day, day)[-1]
        now = utc(last.close_ts)
        sessions = closed_sessions(now, 5)
        assert (sessions[-1], local_time(last.close_ts)) == (last, close)
        assert_both_get_all(market, sessions, now)
        assert {local_time(int(bars.ts[-1]) + 60) for bars in market.bars.values()} == {close}


@pytest.mark.parametrize(
    ("last_day", "days", "opens_utc"),
    [
        (date(2026, 3, 10), ["2026-03-06", "2026-03-09", "2026-03-10"], ["14:30", "13:30", "13:30"]),
        (date(2025, 11, 4), ["2025-10-31", "2025-11-03", "2025-11-04"], ["13:30", "14:30", "14:30"]),
    ],
    ids=["spring", "autumn"],
)
def test_no_bar_moves_or_is_lost_when_the_clocks_change(last_day: date, days: list[str], opens_utc: list[str]) -> None:
    market = simulated(last_day, 3)
    now = market.end + timedelta(hours=2)
    sessions = closed_sessions(now, 5)
    assert [session.day.isoformat() for session in sessions] == days
    assert [utc(session.open_ts).strftime("%H:%M") for session in sessions] == opens_utc
    assert {local_time(ts) for session in sessions for ts in (session.open_ts, session.close_ts)} == {"09:30", "16:00"}
    assert len(make_plan("one", ["A"], sessions, shards=1, request_days=7).spans) == 1
    assert_both_get_all(market, sessions, now)


def test_of_a_running_session_both_get_the_minutes_that_have_ended() -> None:
    market = simulated(date(2025, 12, 5), 2)
    now = datetime(2025, 12, 5, 15, 0, 30, tzinfo=UTC)
    sessions = recent_sessions(now, 3)
    assert [session.day.day for session in sessions] == [3, 4, 5]
    assert_both_get_all(market, sessions, now)


def test_a_ticker_that_traded_on_other_days_alone_is_known_and_has_no_bars() -> None:
    market = simulated(date(2025, 12, 5), 5, tickers=2)
    early = market.bars["SIM002"].between(0, sessions_between(market.days[1], market.days[1])[0].close_ts)
    now = market.end + timedelta(hours=2)
    sessions = closed_sessions(now, 3)
    quiet = Market({**market.bars, "SIM002": early})
    for found in assert_both_get_all(quiet, sessions, now):
        report = found["SIM002"].report
        assert (report.status, report.rows, report.error) == ("partial", 0, "")


def test_with_every_fourth_answer_wrong_both_get_the_same_bars() -> None:
    market = simulated(date(2025, 12, 5), 5)
    now = market.end + timedelta(hours=2)
    faults = Faults(share=0.25, kinds=("500", "drop", "truncated", "malformed", "short"), seed=3)
    for found in assert_both_get_all(market, closed_sessions(now, 8), now, faults):
        assert sum(one.report.fetch.retries for one in found.values()) > 0
        assert sum(one.report.fetch.verified for one in found.values()) > 0


def test_both_get_every_real_bar(real_bars_path: Path) -> None:
    market = read_bars_file(real_bars_path)
    now = market.end + timedelta(hours=2)
    sessions = closed_sessions(now, 13)
    assert (len(market.tickers), len(sessions), sessions[-1].day) == (35, 9, market.days[-1])
    assert_both_get_all(market, sessions, now)


# --- one body, read by both -----------------------------------------------------------------------


class Transport(requests.Session[requests.Response]):
    """Where requests end: every chart is the same body; a cookie and a crumb are granted."""

    body: bytes

    def request(self, method: Any, url: str, *args: Any, **options: Any) -> requests.Response:
        """An answer with status 200."""
        response = requests.Response()
        response.url, response.status_code = url, 200
        response.content = self.body if CHART_PATH in url else b"crumb"
        return response


class ScriptedYahoo(YahooSession, Transport):
    """The session of the ingest, on that transport."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


def through_yfinance(body: bytes, sessions: Sequence[Session], now_ts: float) -> Screened:
    async def ask() -> RawBars:
        async with YFinanceClient(Elsewhere(), in_flight=1, timeout_s=5) as client:
            client._session = ScriptedYahoo(body)
            span = Span(sessions[0].open_ts, sessions[-1].close_ts)
            return (await client.ask("SIM001", span, FetchCount())).read()

    return screen(asyncio.run(ask()), sessions, now_ts, 0.9)


MARKETS = {last_day: simulated(last_day, 3, tickers=1).bars["SIM001"] for last_day in (
    date(2025, 12, 1), date(2026, 3, 10), date(2025, 11, 4))}  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, tuple[Session, ...], int, TickerBars]:
    """A body as the embedded Yahoo makes it, the sessions it was asked about, its instant, and the bars it shows.

    Some of its rows have become null, as Yahoo's are where nothing was traded.
    """
    last_day, all_bars = draw(st.sampled_from(list(MARKETS.items())))
    known = sessions_between(last_day - timedelta(days=20), last_day)
    sessions = known[-draw(st.integers(1, 3)) :]
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    bars = all_bars.part(chance.random(len(all_bars)) < draw(st.sampled_from([1.0, 0.99, 0.5, 0.01])))
    now_ts = sessions[-1].close_ts + draw(st.sampled_from([0, 0, 7200, -1, -61, -9000, -86_000]))
    query = ChartQuery("1m", period1_s=sessions[0].open_ts, period2_s=sessions[-1].close_ts)
    kept_share = draw(st.sampled_from([1.0, 1.0, 2 / 3]))
    body = chart_body("SIM001", bars, query, known, utc(now_ts), kept_share=kept_share)
    shown = inside(bars.between(0, now_ts - contract.BAR_S + 1), sessions)
    shown = shown.part(slice(0, -(-len(shown) * 2 // 3) if kept_share < 1 else None))
    null = chance.random(len(shown)) < draw(st.sampled_from([0.0, 0.0, 0.1, 1.0]))
    return with_nulls(body, null.tolist()), sessions, now_ts, shown.part(~null)


def with_nulls(body: bytes, null: Sequence[bool]) -> bytes:
    if not any(null):
        return body
    document = json.loads(body)
    (quote,) = document["chart"]["result"][0]["indicators"]["quote"]
    for column in quote.values():
        column[:] = [None if gone else value for value, gone in zip(column, null, strict=True)]
    return json.dumps(document).encode()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(bodies())
def test_yfinance_and_the_parser_read_the_same_bars(
    drawn: tuple[bytes, tuple[Session, ...], int, TickerBars],
) -> None:
    body, sessions, now_ts, shown = drawn
    direct = screen(parse_chart(body, "SIM001"), sessions, now_ts, 0.9)
    plain = through_yfinance(body, sessions, now_ts)
    assert direct.bars.same_as(shown)
    assert plain.bars.same_as(shown)
    assert (direct.faults, direct.doubtful) == (plain.faults, plain.doubtful)


def test_prices_that_are_missing_in_part_are_read_alike() -> None:
    (day,) = sessions_between(date(2025, 12, 1), date(2025, 12, 1))
    query = ChartQuery("1m", period1_s=day.open_ts, period2_s=day.close_ts)
    document = json.loads(chart_body("SIM001", MARKETS[day.day], query, [day], utc(day.close_ts)))
    (quote,) = document["chart"]["result"][0]["indicators"]["quote"]
    for minute, name in enumerate(("open", "high", "low", "close", "volume")):
        quote[name][3 * minute] = None
    body = json.dumps(document).encode()
    direct = screen(parse_chart(body, "SIM001"), (day,), day.close_ts, 0.9)
    assert direct.bars.same_as(through_yfinance(body, (day,), day.close_ts).bars)
    assert len(direct.bars) == len(inside(MARKETS[day.day], [day])) - 4
    assert direct.bars.volume[direct.bars.ts == json.loads(body)["chart"]["result"][0]["timestamp"][12]].tolist() == [0]


def test_a_body_without_bars_is_read_alike() -> None:
    (day,) = sessions_between(date(2025, 12, 1), date(2025, 12, 1))
    query = ChartQuery("1m", period1_s=day.open_ts, period2_s=day.close_ts)
    body = chart_body("SIM001", NO_BARS, query, [day], utc(day.close_ts))
    assert len(parse_chart(body, "SIM001").ts) == len(through_yfinance(body, (day,), day.close_ts).bars) == 0

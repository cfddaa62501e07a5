"""Minute bars of a websocket's prices, from a real server on this machine that tells them as Yahoo does."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from websockets.asyncio.server import ServerConnection, serve
from yfinance.pricing_pb2 import PricingData

from app.ingest import price_stream
from app.ingest.bars import latest_bars
from app.ingest.plan import make_plan
from app.ingest.poll import Polled
from app.ingest.price_stream import PriceStream, open_price_stream
from app.ingest.ticker_bars import TickerBars
from app.serving.live_feed import feed_live
from app.serving.tick_writer import TickObjects
from app.sessions import Session
from app.settings import ServingSettings
from app.tables import get_table
from tests.fakes import FakeS3, bucket, make_sessions
from tests.yahoo import minutes_after, walk

(SESSION,) = make_sessions(6)
PRE_MARKET, REGULAR = 0, 1


def message(ticker: str, at_s: float, price: float, day_volume: int, hours: int = REGULAR) -> str:
    """One price as Yahoo tells it; at_s: seconds after the open."""
    time_ms = int((SESSION.open_ts + at_s) * 1000)
    data = PricingData(id=ticker, price=price, time=time_ms, day_volume=day_volume, market_hours=hours)
    return json.dumps({"type": "pricing", "message": base64.b64encode(data.SerializeToString()).decode()})


class Charts:
    """A Market that knows every bar. asked: the tickers of each poll."""

    def __init__(self, *tickers: str, errors: Mapping[str, str] | None = None) -> None:
        self.bars = {ticker: walk(ticker, SESSION) for ticker in tickers}
        self.asked: list[list[str]] = []
        self.errors = dict(errors or {})
        self.now = minutes_after(SESSION, 0)

    def clock(self) -> datetime:
        return self.now

    async def poll(self, wanted: Mapping[str, Session]) -> Polled:
        self.asked.append(sorted(wanted))
        closed_ts = int(self.now.timestamp()) // 60 * 60
        bars = {
            ticker: self.bars[ticker].between(part.open_ts, closed_ts)
            for ticker, part in wanted.items()
            if ticker not in self.errors
        }
        return Polled(bars, {ticker: why for ticker, why in self.errors.items() if ticker in wanted})


def polled(stream: PriceStream, charts: Charts, *tickers: str, minutes: float) -> dict[str, TickerBars]:
    """What a poll gives so long after the open."""
    charts.now = minutes_after(SESSION, minutes)
    return dict(asyncio.run(stream.poll(dict.fromkeys(tickers, SESSION))).bars)


def quiet(line: str) -> None:
    raise AssertionError(line)


def stream_of(charts: Charts, *tickers: str) -> PriceStream:
    return PriceStream(tickers, SESSION, charts, "ws://nowhere", charts.clock, quiet)


def row(bars: TickerBars, minute: int) -> tuple[float, ...]:
    """Open, high, low, close and volume of one minute."""
    (at,) = [i for i, ts in enumerate(bars.ts) if ts == SESSION.open_ts + 60 * minute]
    return tuple(float(column[at]) for column in (bars.open, bars.high, bars.low, bars.close, bars.volume))


def test_a_minute_s_bar_is_made_of_its_prices_and_of_how_the_day_s_volume_grew() -> None:
    charts = Charts("A")
    stream = stream_of(charts, "A")
    for told in (
        message("A", 30, 10.0, 1000),
        message("A", 59.5, 10.25, 1100),
        message("A", 60, 10.5, 1150),
        message("A", 70, 11.0, 1150),
        message("A", 80, 9.5, 1400),
        message("A", 119.999, 10.0, 1500),
        message("A", 120, 12.0, 1600),
    ):
        stream.take(told)
    assert polled(stream, charts, "A", minutes=1.1)["A"].same_as(charts.bars["A"].part(slice(0, 1)))
    heard = polled(stream, charts, "A", minutes=2.1)["A"]
    assert [int(ts - SESSION.open_ts) for ts in heard.ts] == [60]  # the running minute is not told
    assert row(heard, 1) == (10.5, 11.0, 9.5, 10.0, 400.0)
    assert charts.asked == [["A"]]


def test_a_price_that_comes_late_belongs_to_its_own_minute() -> None:
    charts = Charts("A")
    stream = stream_of(charts, "A")
    for told in (message("A", 10, 10.0, 0), message("A", 60, 10.0, 100), message("A", 121, 10.0, 200)):
        stream.take(told)
    polled(stream, charts, "A", minutes=1.1)
    assert row(polled(stream, charts, "A", minutes=2.1)["A"], 1) == (10.0, 10.0, 10.0, 10.0, 100.0)
    stream.take(message("A", 119, 10.5, 200))
    assert row(polled(stream, charts, "A", minutes=3.1)["A"], 1) == (10.0, 10.5, 10.0, 10.5, 100.0)


def test_a_ticker_that_was_not_heard_yet_is_asked_for() -> None:
    charts = Charts("A", "B")
    stream = stream_of(charts, "A", "B")
    stream.take(message("A", 1, 10.0, 0))
    for minutes in (1.1, 2.1, 3.1):
        assert sorted(polled(stream, charts, "A", "B", minutes=minutes)) == ["A", "B"]
    assert charts.asked == [["A", "B"], ["B"], ["B"]]


def test_what_the_charts_did_not_answer_either_is_asked_for_again() -> None:
    charts = Charts("A", errors={"A": "503"})
    stream = stream_of(charts, "A")
    stream.take(message("A", 1, 10.0, 0))
    assert polled(stream, charts, "A", minutes=1.1) == {}
    charts.errors.clear()
    stream.take(message("A", 61, 10.0, 0))
    assert polled(stream, charts, "A", minutes=2.1)["A"].same_as(charts.bars["A"].part(slice(0, 2)))
    assert charts.asked == [["A"], ["A"]]


@pytest.mark.parametrize(
    "told",
    [
        "",
        "[]",
        "{}",
        '{"message": 7}',
        '{"message": "no base64!"}',
        '{"message": "////"}',
        message("OTHER", 61, 10.0, 0),
        message("A", 61, 10.0, 0, hours=PRE_MARKET),
        message("A", 61, float("nan"), 0),
        message("A", 61, -1.0, 0),
        message("A", 61, float("inf"), 0),
    ],
)
def test_what_is_no_price_of_the_session_changes_nothing(told: str) -> None:
    charts = Charts("A")
    stream = stream_of(charts, "A")
    stream.take(told)
    assert polled(stream, charts, "A", minutes=1.1)["A"].same_as(charts.bars["A"].part(slice(0, 1)))
    assert polled(stream, charts, "A", minutes=2.1)["A"].same_as(charts.bars["A"].part(slice(0, 2)))
    assert charts.asked == [["A"], ["A"]]


class Streamer:
    """Yahoo's websocket. subscribed: what clients asked for; connections: those that are open now.

    refusing: whether it closes each one at once.
    """

    def __init__(self) -> None:
        self.subscribed: list[Any] = []
        self.connections: list[ServerConnection] = []
        self.url = ""
        self.refusing = False

    async def handle(self, connection: ServerConnection) -> None:
        if self.refusing:
            return
        self.connections.append(connection)
        try:
            async for words in connection:
                self.subscribed.append(json.loads(words))
        finally:
            self.connections.remove(connection)

    async def tell(self, *messages: str) -> None:
        for told in messages:
            for connection in self.connections:
                await connection.send(told)


@asynccontextmanager
async def streamer() -> AsyncIterator[Streamer]:
    told = Streamer()
    async with serve(told.handle, "127.0.0.1", 0) as server:
        told.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield told


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def listening(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[Streamer, PriceStream, Charts], Awaitable[None]]
) -> None:
    """Do this beside a stream that is connected."""
    monkeypatch.setattr(price_stream, "_AGAIN_S", 0.01)
    charts = Charts("A", "B")

    async def run() -> None:
        async with (
            streamer() as server,
            open_price_stream(("A", "B"), SESSION, charts, url=server.url, clock=charts.clock, say=quiet) as stream,
        ):
            await until(lambda: server.subscribed)
            await work(server, stream, charts)

    asyncio.run(run())


def test_it_subscribes_to_its_tickers_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_stream, "_SUBSCRIBE_S", 0.02)

    async def work(server: Streamer, stream: PriceStream, charts: Charts) -> None:
        await until(lambda: len(server.subscribed) > 2)
        assert server.subscribed[:3] == [{"subscribe": ["A", "B"]}] * 3
        assert len(server.connections) == 1

    listening(monkeypatch, work)


@pytest.mark.parametrize("how", ["closed", "broken"])
def test_after_a_connection_that_ended_another_one_is_made_and_the_minutes_between_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def work(server: Streamer, stream: PriceStream, charts: Charts) -> None:
        await server.tell(message("A", 1, 10.0, 0), message("B", 1, 10.0, 0))
        await until(lambda: len(stream._heard_from) == 2)
        charts.now = minutes_after(SESSION, 1.1)
        await stream.poll({"A": SESSION, "B": SESSION})
        if how == "closed":
            await server.connections[0].close()
        else:
            server.connections[0].transport.abort()
        await until(lambda: len(server.subscribed) == 2)
        assert stream._heard_from == {}
        await server.tell(message("A", 100, 10.0, 700))
        await until(lambda: stream._heard_from)
        charts.now = minutes_after(SESSION, 2.1)
        answer = await stream.poll({"A": SESSION, "B": SESSION})
        assert answer.bars["A"].same_as(charts.bars["A"].part(slice(0, 2)))
        assert charts.asked == [["A", "B"], ["A", "B"]]

    listening(monkeypatch, work)


def test_a_connection_that_tells_nothing_in_the_session_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_stream, "_SUBSCRIBE_S", 0.02)
    monkeypatch.setattr(price_stream, "_SILENCE_S", 0.05)

    async def work(server: Streamer, stream: PriceStream, charts: Charts) -> None:
        before = server.connections[0]
        await until(lambda: server.connections and server.connections[0] is not before)

    listening(monkeypatch, work)


def test_a_server_that_is_not_there_leaves_the_charts(monkeypatch: pytest.MonkeyPatch, taken_port: int) -> None:
    charts = Charts("A")

    async def run() -> Polled:
        url = f"ws://127.0.0.1:{taken_port}"  # listens, and answers nothing
        async with open_price_stream(("A",), SESSION, charts, url=url, clock=charts.clock, say=quiet) as stream:
            charts.now = minutes_after(SESSION, 3.1)
            return await stream.poll({"A": SESSION})

    assert asyncio.run(run()).bars["A"].same_as(charts.bars["A"].part(slice(0, 3)))


def test_a_server_that_stays_away_is_told_once_and_when_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_stream, "_AGAIN_S", 0.01)
    monkeypatch.setattr(price_stream, "_SILENCE_S", 0.1)
    charts, said = Charts("A"), list[str]()

    async def run() -> None:
        async with streamer() as server:
            url, server.refusing = server.url, True
            async with open_price_stream(("A",), SESSION, charts, url=url, clock=charts.clock, say=said.append):
                await until(lambda: said)
                await asyncio.sleep(0.2)
                server.refusing = False
                await until(lambda: server.subscribed)
                await server.tell(message("A", 1, 10.0, 0))
                await until(lambda: len(said) == 2)
            assert [line.partition(" (")[0] for line in said] == [f"no prices from {url}", f"prices from {url} again"]

    asyncio.run(run())


def test_a_whole_session_is_fed_from_the_websocket() -> None:
    """Four prices a minute; the first minute is the charts', the others are made of what was heard."""
    s3 = FakeS3()
    market, charts = bucket(s3), Charts("A", "B")
    plan = make_plan("r", ["A", "B"], (SESSION,), shards=1, request_days=7)
    servers: list[Streamer] = []
    told_to = SESSION.open_ts

    def prices(ticker: str, minute: int) -> list[str]:
        bars = charts.bars[ticker].part(slice(minute, minute + 1))
        volume = int(charts.bars[ticker].volume[:minute].sum())
        each = zip((0, 20, 40, 59.9), np.concatenate(bars.prices).tolist(), strict=True)
        whole = volume + int(bars.volume[0])
        return [message(ticker, 60 * minute + s, price, whole if s == 59.9 else volume) for s, price in each]

    @asynccontextmanager
    async def connect() -> AsyncIterator[PriceStream]:
        async with (
            streamer() as server,
            open_price_stream(("A", "B"), SESSION, charts, url=server.url, clock=charts.clock, say=quiet) as stream,
        ):
            servers.append(server)
            await until(lambda: server.subscribed)
            yield stream

    async def sleep(seconds: float) -> None:
        nonlocal told_to
        charts.now += timedelta(seconds=seconds)
        while told_to + 60 <= min(charts.now.timestamp(), SESSION.close_ts):
            minute = (told_to - SESSION.open_ts) // 60
            await servers[0].tell(*prices("A", minute), *prices("B", minute))
            told_to += 60
        await asyncio.sleep(0.1)

    writer = TickObjects(market, "r", SESSION.day)
    settings = ServingSettings(feed="live", live_client="websocket")
    end = feed_live(plan, SESSION, writer, settings, connect, say=print, clock=charts.clock, sleep=sleep)
    assert charts.asked == [["A", "B"]]
    assert (end["ticks"], end["revised"], end["objects"]) == (12, 0, 6)
    fed = latest_bars([get_table(market, key) for key in s3.puts if key.startswith("ticks/")])
    for name in ("open", "high", "low", "close"):
        whole = [price for ticker in "AB" for price in getattr(charts.bars[ticker], name).tolist()]
        assert fed[name].to_pylist() == pytest.approx(whole, rel=1e-6)  # Yahoo tells prices as float32
    assert fed["volume"].equals(
        pa.chunked_array([[*charts.bars["A"].volume.tolist(), *charts.bars["B"].volume.tolist()]])
    )

"""Lines of a socket as ticks: one bar of a ticker a minute, nothing of a line evaluated, nothing lost at the end."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from app import contract
from app.errors import ServingError
from app.ingest.plan import make_plan
from app.serving.socket_feed import LineBuffer, feed_from_socket, read_line
from app.serving.tick_writer import TickObjects
from app.storage import Bucket
from app.tables import get_table
from tests.fakes import bucket, make_sessions

(SESSION,) = make_sessions(5)
PLAN = make_plan("r", ["ABMD", "BRK-B"], (SESSION,), shards=1, request_days=7)
MINUTE = contract.BAR_S
Step = tuple[float, bytes]
"""The clock, in seconds from the open, and what the server sends then."""


class Exchange:
    """A clock that stands where it is put."""

    def __init__(self, at_s: float = 0.0) -> None:
        self.at_s = at_s

    def __call__(self) -> datetime:
        return datetime.fromtimestamp(SESSION.open_ts + self.at_s, UTC)


class Feed:
    """A feed into a bucket in memory, with what it says and writes."""

    def __init__(self, at_s: float = 0.0, market: Bucket | None = None) -> None:
        self.clock, self.market = Exchange(at_s), market or bucket()
        self.said: list[str] = []
        self.reports: list[tuple[int, int, str]] = []
        self.end: dict[str, Any] = {}

    def run(self, address: str) -> None:
        writer = TickObjects(self.market, "r", SESSION.day)
        self.end = feed_from_socket(
            PLAN,
            SESSION,
            writer,
            address,
            say=self.said.append,
            report=lambda *told: self.reports.append(told),
            clock=self.clock,
        )

    @property
    def keys(self) -> list[str]:
        return self.market.keys(contract.ticks_prefix("r"))

    def bars(self) -> list[dict[str, Any]]:
        return [row for key in self.keys for row in get_table(self.market, key).to_pylist()]


@contextmanager
def serving(script: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server on this machine that does `script` with its one client, and then closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                script(client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            thread.join(10)


def fed(*lines: bytes, at_s: float = 0.0) -> Feed:
    """The feed of a server that sends these within one minute and closes."""
    feed = Feed(at_s)
    with serving(lambda client: client.sendall(b"".join(lines))) as address:
        feed.run(address)
    return feed


def line(ticker: str, close: float, volume: float = 1.0) -> bytes:
    """As the 2021 system wrote it."""
    return f"{ticker}>{ {'Close': close, 'Volume': volume} }\n".encode()


def bar(ticker: str, minute: int, prices: Sequence[float], volume: int) -> dict[str, Any]:
    ts = datetime.fromtimestamp(SESSION.open_ts + MINUTE * minute, UTC)
    return {"ticker": ticker, "ts": ts, **dict(zip(("open", "high", "low", "close"), prices, strict=True))} | {
        "volume": volume
    }


def test_a_line_is_the_bar_of_the_minute_it_arrives_in() -> None:
    feed = fed(line("ABMD", 297.958, 257.0), at_s=2 * MINUTE + 31)
    assert feed.bars() == [bar("ABMD", 2, [297.958] * 4, 257)]
    assert feed.keys == [contract.ticks_key("r", SESSION.day, (SESSION.open_ts + 2 * MINUTE) * 1000, 0)]
    assert feed.reports == [(3, 5, "minutes fed")]


def test_several_lines_of_a_ticker_in_a_minute_are_one_bar() -> None:
    feed = fed(*(line("ABMD", close, 10.4) for close in (10.0, 12.0, 9.0, 11.0)), line("BRK-B", 5.0, 0.0))
    assert feed.bars() == [bar("ABMD", 0, [10.0, 12.0, 9.0, 11.0], 42), bar("BRK-B", 0, [5.0] * 4, 0)]
    assert len(feed.keys) == 1


def test_what_was_written_is_stored_last_as_the_end_of_the_feed() -> None:
    feed = fed(line("ABMD", 1.0), b"nonsense\n")
    assert feed.market.get_json(contract.feed_end_key("r")) == feed.end
    assert feed.end["last_key"] == feed.keys[-1]
    assert feed.end["ticks"] == 1
    assert feed.end["skipped_lines"] == {"malformed": 1}


def test_a_minute_is_written_when_it_is_over_by_the_clock_though_nothing_follows() -> None:
    feed = Feed(59.9)

    def script(client: socket.socket) -> None:
        client.sendall(b"?\n" + line("ABMD", 1.0))
        wait_for(lambda: bool(feed.said))
        feed.clock.at_s = 60.0
        wait_for(lambda: bool(feed.keys))

    with serving(script) as address:
        feed.run(address)
    assert feed.bars() == [bar("ABMD", 0, [1.0] * 4, 1)]


def test_a_line_that_arrives_in_a_later_minute_begins_another_bar() -> None:
    feed = Feed(30.0)

    def script(client: socket.socket) -> None:
        client.sendall(b"?\n" + line("ABMD", 1.0))
        wait_for(lambda: bool(feed.said))
        feed.clock.at_s = 90.0
        client.sendall(line("ABMD", 2.0))

    with serving(script) as address:
        feed.run(address)
    assert feed.bars() == [bar("ABMD", 0, [1.0] * 4, 1), bar("ABMD", 1, [2.0] * 4, 1)]
    assert feed.keys == sorted(feed.keys)


def wait_for(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError


def test_the_feed_ends_at_the_close_though_the_server_stays() -> None:
    feed, over = Feed(4 * MINUTE), threading.Event()

    def script(client: socket.socket) -> None:
        client.sendall(b"?\n" + line("ABMD", 1.0))
        wait_for(lambda: bool(feed.said))
        feed.clock.at_s = 5.0 * MINUTE
        over.wait(10)

    with serving(script) as address:
        feed.run(address)
        over.set()
    assert feed.bars() == [bar("ABMD", 4, [1.0] * 4, 1)]


def test_lines_may_arrive_in_any_pieces() -> None:
    lines = LineBuffer()
    pieces = [b"AB", b"MD>{'Close': 1", b"2.5, 'Volume': 3}\nBRK-B>{'Clo", b"se': 1.0, 'Volume': 1.0}\r\n"]
    found = [read_line(whole) for piece in pieces for whole in lines.add(piece)]
    assert found == [("ABMD", 12.5, 3.0), ("BRK-B", 1.0, 1.0)]
    assert lines.rest() == []


def test_a_line_that_was_not_finished_is_no_tick() -> None:
    feed = fed(line("ABMD", 1.0), line("ABMD", 297.958)[:-1])
    assert feed.bars() == [bar("ABMD", 0, [1.0] * 4, 1)]
    assert feed.end["skipped_lines"] == {"malformed": 1}


def test_a_line_without_an_end_fills_no_memory() -> None:
    lines = LineBuffer()
    assert all(lines.add(b"A" * 65_536) == [] for _ in range(100))
    (rest,) = lines.rest()
    assert len(rest) < 1000
    assert [read_line(found) for found in lines.add(b"\nABMD>{'Close': 1.0, 'Volume': 1.0}\n")] == [
        None,
        ("ABMD", 1.0, 1.0),
    ]


MALICIOUS = [
    b"",
    b"__import__('os').system('id')>{'Close': 1.0, 'Volume': 1.0}",
    b"ABMD>__import__('os').system('id')",
    b"ABMD>{'Close': __import__('os').getpid(), 'Volume': 1.0}",
    b"ABMD>{'Close': 9**9**9, 'Volume': 1.0}",
    b"ABMD>{'Close': 1.0, 'Volume': 1.0}; import os",
    b"ABMD>{'Close': 1.0, 'Volume': 1.0, **{}}",
    b"ABMD>{'Close': nan, 'Volume': 1.0}",
    b"ABMD>{'Close': inf, 'Volume': 1.0}",
    b"ABMD>{'Close': 1e99, 'Volume': 1.0}",
    b"ABMD>{'Close': 1.0, 'Volume': 1e99}",
    b"ABMD>{'Close': 0.0, 'Volume': 1.0}",
    b"ABMD>{'Close': -1.0, 'Volume': 1.0}",
    b"ABMD>{'Close': 1.0, 'Volume': -1.0}",
    b"ABMD>{'Close': 1" + b"0" * 300 + b", 'Volume': 1.0}",
    b"ABMD>{'Close': 1_0.0, 'Volume': 1.0}",
    "ABMD>{'Close': ١.0, 'Volume': 1.0}".encode(),  # noqa: RUF001  a digit to int(), but none of a price
    b"ABMD>{'Volume': 1.0}",
    b"ABMD>{" + b"(" * 10_000,
    b"abmd>{'Close': 1.0, 'Volume': 1.0}",
    b"../ABMD>{'Close': 1.0, 'Volume': 1.0}",
    b"ABMD\x00>{'Close': 1.0, 'Volume': 1.0}",
    b"\xff\xfe>{'Close': 1.0, 'Volume': 1.0}",
    b"ABMD>{'Close': 1.0, 'Volume': 1.0}\x1b[31m",
]


@pytest.mark.parametrize("sent", MALICIOUS)
def test_whatever_is_no_tick_is_skipped_and_evaluates_nothing(sent: bytes) -> None:
    assert read_line(sent) is None


def test_the_first_line_of_each_kind_that_is_skipped_is_told() -> None:
    bad = [sent + b"\n" for sent in MALICIOUS]
    feed = fed(*bad, line("MSFT", 1.0), line("MSFT", 1.0), line("ABMD", 1.0))
    assert feed.end["skipped_lines"] == {"malformed": len(bad), "unknown_ticker": 2}
    assert feed.bars() == [bar("ABMD", 0, [1.0] * 4, 1)]
    assert [re.sub("such as .*: ", "", told) for told in feed.said] == [
        "skips lines malformed",
        "skips lines unknown ticker",
    ]
    assert all(told.isprintable() and len(told) < 300 for told in feed.said)


def test_what_comes_before_the_open_is_of_no_session() -> None:
    feed = fed(line("ABMD", 1.0), at_s=-MINUTE)
    assert feed.keys == []
    assert feed.end["skipped_lines"] == {"outside_session": 1}


def test_a_feed_that_starts_again_writes_after_what_there_is() -> None:
    first = fed(line("ABMD", 1.0), at_s=3 * MINUTE)
    again = Feed(3.0 * MINUTE, first.market)
    with serving(lambda client: client.sendall(line("BRK-B", 2.0))) as address:
        again.run(address)
    assert again.bars() == [bar("ABMD", 3, [1.0] * 4, 1), bar("BRK-B", 3, [2.0] * 4, 1)]
    assert len(again.keys) == 2


def test_a_connection_that_breaks_is_told_and_what_came_is_kept() -> None:
    feed = Feed()

    def script(client: socket.socket) -> None:
        client.sendall(b"?\n" + line("ABMD", 1.0))
        wait_for(lambda: bool(feed.said))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # close with a reset

    with (
        serving(script) as address,
        pytest.raises(ServingError, match=r"the server at 127.* broke off .*: start the feed again"),
    ):
        feed.run(address)
    assert len(feed.bars()) == 1
    assert feed.end == {}


@pytest.mark.parametrize("address", ["127.0.0.1:{free}", "127.0.0.1:99999", "[::1]:{free}", "a" * 70 + ":1"])
def test_a_server_that_is_not_there_is_told(address: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nobody listens on it
        where = address.format(free=bound.getsockname()[1])
        with pytest.raises(ServingError, match=r"nobody listens at .*: start the server, or correct serving.socket_"):
            Feed().run(where)

"""Lines of a TCP socket as ticks, for demonstration: ``ABMD>{'Close': 297.958, 'Volume': 257.0}``, as in 2021.

A socket cannot be read again, and its lines bear no time. They are gathered here by the minute of their arrival and
written as any other feed's bars, so that the stream is as exact as with those.
"""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa

from app import contract
from app.clock import Clock, system_clock
from app.errors import ServingError
from app.ingest.plan import Plan
from app.progress import Report, Say, silent
from app.serving.tick_writer import TickWriter
from app.serving.ticks import MOST_USD
from app.sessions import Session
from app.tables import arrow_schema

_LONGEST_LINE: Final = 256
_CHUNK: Final = 65_536
_NAP_S: Final = 0.5
"""The longest wait for a line: after it the clock is looked at."""
_CONNECT_S: Final = 10.0
_NUMBER: Final = rb"([0-9]{1,15}(?:\.[0-9]{1,17})?(?:[eE][+-]?[0-9]{1,2})?)"
_LINE: Final = re.compile(
    rb"([A-Z0-9.^=-]{1,16})> ?\{ ?'Close': ?" + _NUMBER + rb", ?'Volume': ?" + _NUMBER + rb" ?\}\r?"
)
_MOST_SHARES: Final = 1e10
_SHOWN: Final = 60


@dataclass(frozen=True)
class Trades:
    """What the lines of one ticker came to: prices in USD, volume in shares."""

    open: float
    high: float
    low: float
    close: float
    volume: float

    def then(self, price_usd: float, shares: float) -> Trades:
        """And one more."""
        return replace(
            self,
            high=max(self.high, price_usd),
            low=min(self.low, price_usd),
            close=price_usd,
            volume=self.volume + shares,
        )


def feed_from_socket(
    plan: Plan,
    session: Session,
    writer: TickWriter,
    address: str,
    *,
    say: Say,
    report: Report = silent,
    clock: Clock = system_clock,
) -> dict[str, Any]:
    """Write what a server at `address` (host:port) sends as ticks, a poll for each minute, until it closes.

    Several lines of a ticker in one minute are one bar. A minute is written when it is over by the clock or the server
    closes; the feed ends at the session's close at the latest. Lines that are none, are of a ticker that is not in the
    plan or come outside of the session are skipped; say: told of the first of each kind. Returns, and stores last,
    what was written. Raises ServingError when nobody listens there, or the connection breaks.
    """
    writer.resume()
    minutes = _Minutes(plan, session, writer, say, report)
    lines = LineBuffer()
    with _connected(address) as connection:
        while (now_s := clock().timestamp()) < session.close_ts:
            minutes.begin(int(now_s // contract.BAR_S) * contract.BAR_S)
            connection.settimeout(max(0.01, min(_NAP_S, contract.BAR_S - now_s % contract.BAR_S)))
            try:
                received = connection.recv(_CHUNK)
            except TimeoutError:
                continue
            except OSError as exc:
                minutes.write()
                raise ServingError(f"the server at {address} broke off ({exc}): start the feed again") from exc
            minutes.begin(int(clock().timestamp() // contract.BAR_S) * contract.BAR_S)
            for line in lines.add(received) if received else lines.rest():
                minutes.take(line)
            if not received:
                break
    minutes.write()
    return writer.end(skipped_lines=dict(minutes.skipped))


class LineBuffer:
    """Cuts what arrives into lines, whatever pieces it arrives in."""

    def __init__(self) -> None:
        self._begun = b""

    def add(self, received: bytes) -> list[bytes]:
        """The lines that this completes."""
        *lines, begun = (self._begun + received).split(b"\n")
        self._begun = begun[: _LONGEST_LINE + 1]  # so much is enough to know that it is too long
        return lines

    def rest(self) -> list[bytes]:
        """What came of a line that was not finished, as one that is no tick: its number may have been cut short."""
        return [self._begun + b"..."] if self._begun else []


def read_line(line: bytes) -> tuple[str, float, float] | None:
    """Ticker, price in USD and shares; None for anything else. Nothing of a line is ever evaluated."""
    found = _LINE.fullmatch(line) if len(line) <= _LONGEST_LINE else None
    if found is None:
        return None
    price_usd, shares = float(found[2]), float(found[3])
    sane = 0 < price_usd <= MOST_USD and shares <= _MOST_SHARES
    return (found[1].decode(), price_usd, shares) if sane else None


class _Minutes:
    """The bars of the minute that runs. skipped: lines by why."""

    def __init__(self, plan: Plan, session: Session, writer: TickWriter, say: Say, report: Report) -> None:
        self.skipped: Counter[str] = Counter()
        self._tickers, self._session = frozenset(plan.tickers), session
        self._writer, self._say, self._report = writer, say, report
        self._ts, self._bars = 0, dict[str, Trades]()

    def begin(self, ts: int) -> None:
        """It is this minute now: an earlier one is written."""
        if ts > self._ts:
            self.write()
            self._ts = ts

    def take(self, line: bytes) -> None:
        """One line, which has just arrived."""
        tick = read_line(line)
        if tick is None:
            self._skip("malformed", line)
        elif tick[0] not in self._tickers:
            self._skip("unknown_ticker", line)
        elif not self._session.open_ts <= self._ts < self._session.close_ts:
            self._skip("outside_session", line)
        else:
            ticker, price_usd, shares = tick
            first = Trades(price_usd, price_usd, price_usd, price_usd, 0.0)
            self._bars[ticker] = self._bars.get(ticker, first).then(price_usd, shares)

    def write(self) -> None:
        """Write the minute's bars, if there are any."""
        if not self._bars:
            return
        self._writer.put(_table(self._ts, self._bars))
        self._bars = {}
        done = (self._ts - self._session.open_ts) // contract.BAR_S + 1
        self._report(done, self._session.minutes, "minutes fed")

    def _skip(self, why: str, line: bytes) -> None:
        if not self.skipped[why]:
            self._say(f"skips lines such as {line[:_SHOWN]!r}: {why.replace('_', ' ')}")
        self.skipped[why] += 1


def _table(ts: int, bars: dict[str, Trades]) -> pa.Table:
    """Bars of one minute, in the contract's schema, ordered by ticker."""
    schema = arrow_schema(contract.BARS)
    tickers = sorted(bars)
    prices = {name: [getattr(bars[ticker], name) for ticker in tickers] for name in ("open", "high", "low", "close")}
    starts = pa.array([ts * 1000] * len(tickers)).cast(schema.field("ts").type)
    volume = [round(bars[ticker].volume) for ticker in tickers]
    return pa.table({"ticker": tickers, "ts": starts, **prices, "volume": volume}, schema=schema)


@contextmanager
def _connected(address: str) -> Iterator[socket.socket]:
    host, _, port = address.rpartition(":")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S)
    except (OSError, OverflowError, UnicodeError) as exc:  # a port above 65535, a host that is no name
        raise ServingError(
            f"nobody listens at {address} ({exc}): start the server, or correct serving.socket_address"
        ) from exc
    with connection:
        yield connection

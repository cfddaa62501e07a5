"""Bars on their way through the stream, what the other bars of their poll say of the market, and which are of use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from app.contract import BAR_S
from app.dataset.features import FloatArray, Minutes, market_returns
from app.dataset.windows import Index
from app.ingest.bars import bar_starts
from app.sessions import Session

OPEN, HIGH, LOW, CLOSE, VOLUME, MARKET_RETURN = range(6)
"""The columns of Bars."""
Bars = FloatArray
"""(..., 6): prices in USD, volume in shares, and the market's return, see `columns_of`."""
_PRICES = ("open", "high", "low", "close")
MOST_USD = 1e10
_MOST_SHARES = 2.0**53
_MOST_RETURN = 10.0
"""Log return of the market in a minute."""
_VALUES = (*_PRICES, "volume", "market_return")


@dataclass(frozen=True)
class Ticks:
    """Bars of one micro-batch for one bucket, in any order.

    ticker: str (n,); ts: epoch seconds (n,); bars: (n, 6); poll: (n,) in which poll each came, ascending with time.
    """

    ticker: npt.NDArray[np.object_]
    ts: Minutes
    bars: Bars
    poll: Minutes

    def part(self, places: Index) -> Ticks:
        """Those at these places."""
        return Ticks(self.ticker[places], self.ts[places], self.bars[places], self.poll[places])


@dataclass(frozen=True)
class TickCounts:
    """What became of bars that were not simply taken in.

    late: older than what is open; duplicate: known already; revised: known with other values, which were replaced;
    skipped: outside of all sessions, or not a bar.
    """

    late: int = 0
    duplicate: int = 0
    revised: int = 0
    skipped: int = 0

    def plus(self, **more: int) -> TickCounts:
        """These and more."""
        return TickCounts(**{name: count + more.get(name, 0) for name, count in asdict(self).items()})

    @classmethod
    def sum_of(cls, parts: Iterable[TickCounts]) -> TickCounts:
        """All of them together."""
        return reduce(lambda one, other: one.plus(**asdict(other)), parts, cls())


def columns_of(bars: pa.Table, poll: int = 0) -> pa.Table:
    """The bars of one poll (contract.BARS) in the stream's columns, ordered by ticker and ts.

    A later step sees the tickers of its own bucket alone, so the market's return in each minute is taken here:
    the mean over all bars of that minute in this poll. A poll that brings every ticker's bar of a minute gives
    what training had, to the last bit. A bar that comes in a later poll than the others of its minute is
    compared with the bars of that minute in its own poll, and the others have been compared without it. Stored
    bars of whole sessions may be given as one poll: they are what training had.

    poll: number of the poll among those that may be seen together, ascending. A price that is none gives the market
    nothing, and its bar no market's return.
    """
    bars = bars.sort_by([("ticker", "ascending"), ("ts", "ascending")])
    ts, prices = bar_starts(bars), {name: bars[name].to_numpy() for name in _PRICES}
    real = (prices["open"] > 0) & (prices["close"] > 0) & np.isfinite(prices["open"] + prices["close"])
    market = np.full(len(ts), np.nan)
    market[real] = market_returns(ts[real], prices["open"][real], prices["close"][real])
    columns = {
        "ticker": bars["ticker"],
        "ts": ts,
        **prices,
        "volume": bars["volume"].to_numpy().astype(np.float64),
        "market_return": market,
        "poll": np.full(len(ts), poll, np.int64),
    }
    return pa.table(columns)


def ticks_from_table(columns: pa.Table) -> Ticks:
    """Rows in the stream's columns."""
    bars = np.stack([columns[name].to_numpy() for name in _VALUES], axis=-1)
    return Ticks(columns["ticker"].to_numpy(), columns["ts"].to_numpy(), bars, columns["poll"].to_numpy())


def ticks_from_frame(frame: pd.DataFrame) -> Ticks:
    """Rows in the stream's columns."""
    bars = frame[list(_VALUES)].to_numpy(np.float64)
    return Ticks(frame["ticker"].to_numpy(), frame["ts"].to_numpy(), bars, frame["poll"].to_numpy())


def turns(ticks: Ticks, who: Index) -> Iterator[Index]:
    """Places of the bars by the polls of their tickers: those of each ticker's first poll, then of its second ...

    who: (n,) the number of each bar's ticker. Taken in one turn after the other they come to the same, however polls
    are dealt to micro-batches.
    """
    order = np.lexsort((ticks.poll, who))
    ticker_changes = np.diff(who[order], prepend=-1) != 0
    poll_changes = ticker_changes | (np.diff(ticks.poll[order], prepend=-1) != 0)
    number = np.cumsum(poll_changes)
    turn = number - np.maximum.accumulate(np.where(ticker_changes, number, 0))
    for each in range(int(turn.max(initial=-1)) + 1):
        yield order[turn == each]


def screen(
    ticks: Ticks, who: Index, sessions: Sequence[Session], last_ts: Minutes, watermark: int
) -> tuple[Index, Minutes, TickCounts]:
    """Which bars of one turn may be taken in: of sessions, real ones, not late, of each ticker and minute the last.

    who: (n,) the number of each bar's ticker; sessions: ascending; last_ts: (tickers,) the newest bar of each. A bar is
    late when a bar of its ticker that is `watermark` minutes newer, or of a later session, came in a turn before.
    Returns their places in `ticks`, the open of each one's session (epoch s), and the counts of the others.
    """
    opens = np.array([session.open_ts for session in sessions], np.int64)
    closes = np.array([session.close_ts for session in sessions], np.int64)
    place = np.searchsorted(opens, ticks.ts, side="right") - 1
    good = (place >= 0) & _are_bars(ticks.bars)
    good[good] = ticks.ts[good] < closes[place[good]]
    newest = last_ts[who]
    begun = np.searchsorted(opens, newest, side="right") - 1  # the session that the ticker is in
    late = good & ((place < begun) | (ticks.ts <= newest - watermark * BAR_S))
    order = np.lexsort((ticks.ts, who))
    order = order[(good & ~late)[order]]
    again = (np.diff(who[order]) == 0) & (np.diff(ticks.ts[order]) == 0)  # the next one is of the same minute
    values = ticks.bars[order, :MARKET_RETURN]
    same = again & (values[:-1] == values[1:]).all(axis=1)
    chosen = order[np.append(~again, np.ones(min(1, len(order)), bool))]
    counts = TickCounts(duplicate=int(same.sum()), revised=int((again & ~same).sum()), skipped=int((~good).sum()))
    counts = counts.plus(late=int(late.sum()))
    return chosen, opens[place[chosen]], counts


def _are_bars(bars: Bars) -> npt.NDArray[np.bool_]:
    """Finite numbers that a market can bring: a source of others' making may hold any."""
    finite = np.isfinite(bars).all(axis=1)
    price, volume = bars[:, : CLOSE + 1], bars[:, VOLUME]
    prices = ((price > 0) & (price <= MOST_USD)).all(axis=1)
    return finite & prices & (volume >= 0) & (volume <= _MOST_SHARES) & (np.abs(bars[:, MARKET_RETURN]) <= _MOST_RETURN)

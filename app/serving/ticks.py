"""Bars on their way through the stream, what the other bars of their poll say of the market, and which are of use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
_VALUES = (*_PRICES, "volume", "market_return")


@dataclass(frozen=True)
class Ticks:
    """Bars of one micro-batch for one bucket, in any order.

    ticker: str (n,); ts: epoch seconds (n,); bars: (n, 6); poll: (n,) of two bars of one ticker and minute, that of the
    later poll counts.
    """

    ticker: npt.NDArray[np.object_]
    ts: Minutes
    bars: Bars
    poll: Minutes


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


def screen(
    ticks: Ticks, who: Index, sessions: Sequence[Session], last_ts: Minutes, watermark: int
) -> tuple[Index, Minutes, TickCounts]:
    """Which bars may be taken in: of sessions, real ones, not late, of each ticker and minute the last.

    who: (n,) the number of each bar's ticker; sessions: ascending; last_ts: (tickers,) the newest bar of each. A bar is
    late when a bar of its ticker that is `watermark` minutes newer, or of a later session, came in a poll before its
    own: however polls are dealt to micro-batches, the same bars are. Returns their places in `ticks`, the open of each
    one's session (epoch s), and the counts of the others.
    """
    opens = np.array([session.open_ts for session in sessions], np.int64)
    closes = np.array([session.close_ts for session in sessions], np.int64)
    place = np.searchsorted(opens, ticks.ts, side="right") - 1
    good = (place >= 0) & _are_bars(ticks.bars)
    good[good] = ticks.ts[good] < closes[place[good]]
    newest = np.full(len(who), -1, np.int64)
    newest[good] = _newest_before(ticks.poll[good], ticks.ts[good], who[good], last_ts)
    begun = np.searchsorted(opens, newest, side="right") - 1  # the session that the ticker is in
    late = good & ((place < begun) | (ticks.ts <= newest - watermark * BAR_S))
    order = np.lexsort((ticks.poll, ticks.ts, who))
    order = order[(good & ~late)[order]]
    again = (np.diff(who[order]) == 0) & (np.diff(ticks.ts[order]) == 0)  # the next one is of the same minute
    values = ticks.bars[order, :MARKET_RETURN]
    same = again & (values[:-1] == values[1:]).all(axis=1)
    chosen = order[np.append(~again, np.ones(min(1, len(order)), bool))]
    counts = TickCounts(duplicate=int(same.sum()), revised=int((again & ~same).sum()), skipped=int((~good).sum()))
    counts = counts.plus(late=int(late.sum()))
    return chosen, opens[place[chosen]], counts


def _newest_before(poll: Minutes, ts: Minutes, who: Index, last_ts: Minutes) -> Minutes:
    """For each bar the start of the newest one of its ticker that is held or came in an earlier poll."""
    order = np.lexsort((poll, who))
    poll, ts, who = poll[order], ts[order], who[order]
    apart = who * (1 << 40)  # tickers ascend, so that a running maximum begins anew with each
    running = np.maximum.accumulate(np.maximum(ts, last_ts[who]) + apart) - apart
    begins = np.append(True, (np.diff(who) != 0) | (np.diff(poll) != 0))[: len(who)]
    first = np.maximum.accumulate(np.where(begins, np.arange(len(who)), 0))  # of each bar's ticker and poll
    before = np.maximum(first - 1, 0)
    found = np.empty(len(who), np.int64)
    found[order] = np.where((first > 0) & (who[before] == who), running[before], last_ts[who])
    return found


def _are_bars(bars: Bars) -> npt.NDArray[np.bool_]:
    """Finite numbers, prices above 0 and volumes that are not below it."""
    finite = np.isfinite(bars).all(axis=1)
    return finite & (bars[:, : CLOSE + 1] > 0).all(axis=1) & (bars[:, VOLUME] >= 0)

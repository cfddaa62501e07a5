"""The state of one bucket of tickers: the last feature rows of each, and the bars that may still change.

Bars are applied in time order with the feature function of training, so that a window held here equals
the window that the dataset phase cuts from the same bars, bit for bit. Missing minutes become the rows
that the dataset's grid gives them. A return never spans two sessions; the window itself may begin in the
session before, and `carried` says how many of its minutes do.

The newest `watermark` minutes of a ticker are open: a bar that comes late into them, or comes again with other
values, takes its place as if it had come in time. The rows since are taken back and made again from the bars, which
are kept so long. What is older than that stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from app.contract import BAR_S
from app.dataset.features import FloatArray, Minute, Rows, minute_features
from app.dataset.spec import Spec
from app.dataset.windows import Index
from app.serving.ticks import CLOSE, HIGH, LOW, MARKET_RETURN, OPEN, VOLUME, Bars, TickCounts, Ticks, screen, turns
from app.sessions import Session

_NEVER = -1
STATE = (
    *("rows", "position", "held", "last_ts", "last_close", "session_ts", "session_open"),
    *("bars", "bar_ts", "settled_ts", "settled_close"),
)
"""The arrays of Rings: what is kept of each ticker."""


@dataclass(frozen=True)
class ReadyWindows:
    """Full windows, one for each bar that completed one.

    ticker: (n,) index into the rings' tickers; as_of: int64 (n,); last_price: float64 (n,) USD;
    carried: int32 (n,) minutes from the session before; rows: float32 (n, window, features), not scaled.
    """

    ticker: Index
    as_of: Index
    last_price: FloatArray
    carried: npt.NDArray[np.int32]
    rows: Rows


@dataclass
class Rings:
    """Ring buffers of n tickers, for a model with this spec; watermark: minutes of a ticker that stay open.

    rows: float32 (n, window + watermark, the spec's features), the next row goes to `position`; held: int64 (n,)
    rows seen, at most all; last_ts, last_close: of the newest bar; session_ts: open of its session; session_open: open
    of the session's first bar, NaN before it. bars: float64 (n, watermark, 6) the session's bars as in Ticks, each in
    the place of its minute's number modulo watermark, and bar_ts: when they start; settled_ts, settled_close: of the
    session's newest bar that has lost its place there.
    """

    spec: Spec
    watermark: int
    tickers: tuple[str, ...]
    rows: Rows
    position: Index
    held: Index
    last_ts: Index
    last_close: FloatArray
    session_ts: Index
    session_open: FloatArray
    bars: Bars
    bar_ts: Index
    settled_ts: Index
    settled_close: FloatArray
    _volume_profile: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._volume_profile = np.array(self.spec.volume_profile, np.float64)

    @classmethod
    def empty(cls, tickers: Sequence[str], spec: Spec, watermark: int) -> Rings:
        """Rings that have seen nothing."""
        n = len(tickers)
        return cls(
            spec=spec,
            watermark=watermark,
            tickers=tuple(tickers),
            rows=np.zeros((n, spec.window_min + watermark, len(spec.features)), np.float32),
            position=np.zeros(n, np.int64),
            held=np.zeros(n, np.int64),
            last_ts=np.full(n, _NEVER, np.int64),
            last_close=np.zeros(n, np.float64),
            session_ts=np.full(n, _NEVER, np.int64),
            session_open=np.full(n, np.nan),
            bars=np.zeros((n, watermark, MARKET_RETURN + 1), np.float64),
            bar_ts=np.full((n, watermark), _NEVER, np.int64),
            settled_ts=np.full(n, _NEVER, np.int64),
            settled_close=np.zeros(n, np.float64),
        )

    @property
    def window(self) -> int:
        """Minutes that a window holds."""
        return self.spec.window_min

    @property
    def capacity(self) -> int:
        """Rows that a ring holds: a window, and what may be taken back."""
        return self.spec.window_min + self.watermark

    def select(self, tickers: Sequence[str]) -> Rings:
        """The rings of these tickers; one that is not held starts empty."""
        place = {ticker: i for i, ticker in enumerate(self.tickers)}
        chosen = Rings.empty(tickers, self.spec, self.watermark)
        known = np.array([i for i, ticker in enumerate(tickers) if ticker in place], np.int64)
        source = np.array([place[tickers[i]] for i in known], np.int64)
        for name in STATE:
            getattr(chosen, name)[known] = getattr(self, name)[source]
        return chosen

    def joined(self, other: Rings) -> Rings:
        """These rings and then those of `other`, which has the same watermark."""
        both = Rings.empty(self.tickers + other.tickers, self.spec, self.watermark)
        for name in STATE:
            setattr(both, name, np.concatenate([getattr(self, name), getattr(other, name)]))
        return both

    def apply(self, ticks: Ticks, sessions: Sequence[Session]) -> tuple[ReadyWindows, TickCounts]:
        """Take the bars in, poll by poll; returns the windows that they complete and what became of the bars.

        sessions: those that bars may belong to, ascending; bars outside of them are skipped. A minute's window is
        returned when its first bar is taken in, and not again when another bar changes it.
        """
        place = {ticker: i for i, ticker in enumerate(self.tickers)}
        who = np.array([place[ticker] for ticker in ticks.ticker], np.int64)
        done = [self._apply_turn(ticks.part(turn), who[turn], sessions) for turn in turns(ticks, who)]
        ready = _concatenate([ready for ready, _ in done], self.spec)
        return ready, TickCounts.sum_of(counts for _, counts in done)

    def _apply_turn(self, ticks: Ticks, which: Index, sessions: Sequence[Session]) -> tuple[ReadyWindows, TickCounts]:
        """Bars of one poll of each ticker, in time order."""
        chosen, session_ts, counts = screen(ticks, which, sessions, self.last_ts, self.watermark)
        who, ts, bars = which[chosen], ticks.ts[chosen], ticks.bars[chosen]
        place_of = (ts - session_ts) // BAR_S % self.watermark
        known = self.bar_ts[who, place_of] == ts
        same = known & (self.bars[who, place_of, :MARKET_RETURN] == bars[:, :MARKET_RETURN]).all(axis=1)
        counts = counts.plus(duplicate=int(same.sum()), revised=int((known & ~same).sum()))
        taken = ~same
        return self._apply(who[taken], ts[taken], bars[taken], ~known[taken], sessions), counts

    def _apply(
        self, who: Index, ts: Index, bars: Bars, new: npt.NDArray[np.bool_], sessions: Sequence[Session]
    ) -> ReadyWindows:
        """Take in bars, at most one for each ticker and minute; windows are ready where they are `new`."""
        back = ts <= self.last_ts[who]
        if back.any():
            again_who, again_ts, again_bars = self._take_back(who[back], ts[back])
            who, ts = np.concatenate([who, again_who]), np.concatenate([ts, again_ts])
            bars, new = np.concatenate([bars, again_bars]), np.concatenate([new, np.zeros(len(again_ts), bool)])
        order = np.lexsort((who, ts))
        parts: list[ReadyWindows] = []
        opens = np.array([session.open_ts for session in sessions])
        for at in np.split(order, np.flatnonzero(np.diff(ts[order])) + 1):
            if len(at):
                minute = int(ts[at[0]])
                session = sessions[int(np.searchsorted(opens, minute, side="right")) - 1]
                self._apply_minute(who[at], minute, bars[at], session, sessions)
                parts.append(self._ready(who[at[new[at]]], minute, session))
        return _concatenate(parts, self.spec)

    def _take_back(self, who: Index, ts: Index) -> tuple[Index, Index, Bars]:
        """Stand where each ticker stood before the earliest of these minutes; returns the other bars taken back."""
        earliest = np.full(len(self.tickers), np.iinfo(np.int64).max)
        np.minimum.at(earliest, who, ts)
        every = np.unique(who)
        since = earliest[every]
        rows = (self.last_ts[every] - since) // BAR_S + 1
        held = self.bar_ts[every]  # (tickers, watermark)
        given = np.zeros(held.shape, bool)
        place = (ts - self.session_ts[who]) // BAR_S % self.watermark
        given[np.searchsorted(every, who), place] = True  # a bar that is revised is not taken again
        ticker, slot = np.nonzero((held >= since[:, None]) & ~(given & (held != _NEVER)))
        again = every[ticker], held[ticker, slot], self.bars[every[ticker], slot]

        before = np.where(held < since[:, None], held, _NEVER)
        newest = before.argmax(axis=1)
        newest_ts = before[np.arange(len(every)), newest]
        kept = newest_ts > self.settled_ts[every]
        close = np.where(kept, self.bars[every, newest, CLOSE], self.settled_close[every])
        first = np.maximum(newest_ts, self.settled_ts[every]) == _NEVER  # no bar of this session is left before
        self.position[every] = (self.position[every] - rows) % self.capacity
        self.held[every] -= rows
        self.last_ts[every], self.last_close[every] = since - BAR_S, close
        self.session_open[every[first]] = np.nan
        return again

    def _apply_minute(self, who: Index, ts: int, bars: Bars, session: Session, sessions: Sequence[Session]) -> None:
        """Bars of one minute, one for each ticker in `who`, none of them older than the ticker's newest."""
        self._begin_session(who[self.session_ts[who] != session.open_ts], session, sessions)
        # The session's first bar may come late: its open stands for the close before it, as on the grid.
        first = np.isnan(self.session_open[who])
        self.session_open[who[first]] = bars[first, OPEN]
        previous = np.where(first, bars[:, OPEN], self.last_close[who])
        number = np.full(len(who), (ts - session.open_ts) // BAR_S)
        self._push_filled(who, (ts - self.last_ts[who]) // BAR_S - 1, number, previous)
        minute = Minute(
            open=bars[:, OPEN],
            high=bars[:, HIGH],
            low=bars[:, LOW],
            close=bars[:, CLOSE],
            previous_close=previous,
            session_open=self.session_open[who],
            volume=bars[:, VOLUME],
            number=number,
            market_return=bars[:, MARKET_RETURN],
        )
        self._push(who, minute)
        self.last_ts[who], self.last_close[who] = ts, bars[:, CLOSE]
        self._keep(who, ts, int(number[0]) % self.watermark, bars)

    def _keep(self, who: Index, ts: int, slot: int, bars: Bars) -> None:
        """Put bars in their places; what was there is settled."""
        there = self.bar_ts[who, slot]
        settled = (there > self.settled_ts[who]) & (there != ts)
        self.settled_ts[who[settled]] = there[settled]
        self.settled_close[who[settled]] = self.bars[who[settled], slot, CLOSE]
        self.bar_ts[who, slot], self.bars[who, slot] = ts, bars

    def _begin_session(self, who: Index, session: Session, sessions: Sequence[Session]) -> None:
        """Fill the minutes that the tickers' earlier session still had, and leave it."""
        if not len(who):
            return
        minutes_of = {earlier.open_ts: earlier.minutes for earlier in sessions}
        minutes = np.array([minutes_of.get(int(opened), 0) for opened in self.session_ts[who]])
        seen, minutes = who[minutes > 0], minutes[minutes > 0]
        rest = minutes - (self.last_ts[seen] - self.session_ts[seen]) // BAR_S - 1
        self._push_filled(seen, rest, minutes, self.last_close[seen])
        self.session_ts[who], self.session_open[who] = session.open_ts, np.nan
        self.last_ts[who] = session.open_ts - BAR_S
        self.bars[who], self.bar_ts[who] = 0.0, _NEVER
        self.settled_ts[who], self.settled_close[who] = _NEVER, 0.0

    def _push_filled(self, who: Index, counts: Index, end: Index, price: FloatArray) -> None:
        """Push rows of minutes without a trade: the `counts` ones before minute number `end` of the session."""
        self.position[who] = (self.position[who] + np.maximum(counts - self.capacity, 0)) % self.capacity
        counts = np.minimum(counts, self.capacity)
        for done in range(int(counts.max(initial=0))):
            left = counts > done
            some, number = who[left], (end - counts + done)[left]
            self._push(some, Minute.without_trade(price[left], self.session_open[some], number))

    def _push(self, who: Index, minute: Minute) -> None:
        self.rows[who, self.position[who]] = minute_features(self.spec.features, minute, self._volume_profile)
        self.position[who] = (self.position[who] + 1) % self.capacity
        self.held[who] = np.minimum(self.held[who] + 1, self.capacity)

    def _ready(self, who: Index, ts: int, session: Session) -> ReadyWindows:
        who = who[self.held[who] >= self.window]
        turn = (self.position[who][:, None] + np.arange(-self.window, 0)) % self.capacity
        carried = max(0, self.window - (ts - session.open_ts) // BAR_S - 1)
        return ReadyWindows(
            ticker=who,
            as_of=np.full(len(who), ts, np.int64),
            last_price=self.last_close[who],
            carried=np.full(len(who), carried, np.int32),
            rows=self.rows[who[:, None], turn],
        )


def _concatenate(parts: Sequence[ReadyWindows], spec: Spec) -> ReadyWindows:
    none = np.empty(0, np.int64)
    rows = np.empty((0, spec.window_min, len(spec.features)), np.float32)
    parts = [ReadyWindows(none, none, none.astype(np.float64), none.astype(np.int32), rows), *parts]
    names = ("ticker", "as_of", "last_price", "carried", "rows")
    return ReadyWindows(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

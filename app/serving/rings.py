"""The state of one bucket of tickers: the last `window` feature rows of each.

Bars are applied in time order with the feature function of training, so that a window held here equals
the window that the dataset phase cuts from the same bars, bit for bit. Missing minutes become the rows
that the dataset's grid gives them. A return never spans two sessions; the window itself may begin in the
session before, and `carried` says how many of its minutes do.
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
from app.errors import ServingError
from app.serving.ticks import Ticks
from app.sessions import Session

_NEVER = -1
STATE = ("rows", "position", "held", "carried", "last_ts", "last_close", "session_open")
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
    """Ring buffers of n tickers, for a model with this spec.

    rows: float32 (n, window, the spec's features), oldest row at `position`; held: int64 (n,) rows seen, at
    most window; carried: how many of them lie in an earlier session; last_ts, last_close: of the newest bar;
    session_open: open of the first bar in its session. late: bars that came after a newer one of their
    ticker, and were dropped.
    """

    spec: Spec
    tickers: tuple[str, ...]
    rows: Rows
    position: Index
    held: Index
    carried: Index
    last_ts: Index
    last_close: FloatArray
    session_open: FloatArray
    late: int = 0
    _volume_profile: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._volume_profile = np.array(self.spec.volume_profile, np.float64)

    @classmethod
    def empty(cls, tickers: Sequence[str], spec: Spec) -> Rings:
        """Rings that have seen nothing."""
        n = len(tickers)
        return cls(
            spec=spec,
            tickers=tuple(tickers),
            rows=np.zeros((n, spec.window_min, len(spec.features)), np.float32),
            position=np.zeros(n, np.int64),
            held=np.zeros(n, np.int64),
            carried=np.zeros(n, np.int64),
            last_ts=np.full(n, _NEVER, np.int64),
            last_close=np.zeros(n, np.float64),
            session_open=np.zeros(n, np.float64),
        )

    @property
    def window(self) -> int:
        """Minutes that a window holds."""
        return self.spec.window_min

    def select(self, tickers: Sequence[str]) -> Rings:
        """The rings of these tickers; one that is not held starts empty."""
        place = {ticker: i for i, ticker in enumerate(self.tickers)}
        chosen = Rings.empty(tickers, self.spec)
        known = np.array([i for i, ticker in enumerate(tickers) if ticker in place], np.int64)
        source = np.array([place[tickers[i]] for i in known], np.int64)
        for name in STATE:
            getattr(chosen, name)[known] = getattr(self, name)[source]
        return chosen

    def joined(self, other: Rings) -> Rings:
        """These rings and then those of `other`."""
        both = Rings.empty(self.tickers + other.tickers, self.spec)
        both.late = self.late + other.late
        for name in STATE:
            setattr(both, name, np.concatenate([getattr(self, name), getattr(other, name)]))
        return both

    def apply(self, ticks: Ticks, sessions: Sequence[Session]) -> ReadyWindows:
        """Take the bars in, in time order, and return the window that each of them completes.

        sessions: those that bars may belong to, ascending. Duplicates and bars older than their ticker's
        newest are counted in `late` and dropped. Raises ServingError for a bar outside all sessions.
        """
        place = {ticker: i for i, ticker in enumerate(self.tickers)}
        which = np.array([place[ticker] for ticker in ticks.ticker], np.int64)
        order = np.lexsort((which, ticks.ts))
        parts: list[ReadyWindows] = []
        for chosen in np.split(order, np.flatnonzero(np.diff(ticks.ts[order])) + 1):
            _, first = np.unique(which[chosen], return_index=True)  # one minute: each ticker once
            self.late += len(chosen) - len(first)
            part = self._apply_minute(which[chosen[first]], chosen[first], ticks, sessions)
            if len(part.ticker):
                parts.append(part)
        return _concatenate(parts, self.spec)

    def _apply_minute(self, who: Index, at: Index, ticks: Ticks, sessions: Sequence[Session]) -> ReadyWindows:
        """Bars of one minute, one for each ticker in `who`; `at` are their places in `ticks`."""
        ts = int(ticks.ts[at[0]]) if len(at) else 0
        fresh = self.last_ts[who] < ts
        self.late += int((~fresh).sum())
        who, at = who[fresh], at[fresh]
        if not len(who):
            return _concatenate([], self.spec)
        session = _session_of(ts, sessions)
        starts_session = self.last_ts[who] < session.open_ts
        self._end_sessions(who[starts_session], session, sessions)
        self.session_open[who[starts_session]] = ticks.open[at[starts_session]]
        # The session's first bar may come late: its open stands for the close before it, as on the grid.
        previous = np.where(starts_session, ticks.open[at], self.last_close[who])
        since = np.where(starts_session, session.open_ts - BAR_S, self.last_ts[who])
        number = np.full(len(who), (ts - session.open_ts) // BAR_S)
        self._push_filled(who, (ts - since) // BAR_S - 1, number, previous)
        minute = Minute(
            open=ticks.open[at],
            high=ticks.high[at],
            low=ticks.low[at],
            close=ticks.close[at],
            previous_close=previous,
            session_open=self.session_open[who],
            volume=ticks.volume[at],
            number=number,
            market_return=ticks.market_return[at],
        )
        self._push(who, minute)
        self.last_ts[who] = ts
        self.last_close[who] = ticks.close[at]
        return self._ready(who, ts)

    def _end_sessions(self, who: Index, new: Session, sessions: Sequence[Session]) -> None:
        """Fill the minutes that the tickers' earlier session still had, and count its rows as carried."""
        seen = who[self.last_ts[who] != _NEVER]
        earlier = [s for s in sessions if s.open_ts < new.open_ts]
        if earlier:
            place = np.searchsorted([s.open_ts for s in earlier], self.last_ts[seen], side="right") - 1
            known, place = seen[place >= 0], place[place >= 0]
            opened = np.array([s.open_ts for s in earlier])[place]
            minutes = np.array([s.minutes for s in earlier])[place]
            rest = minutes - (self.last_ts[known] - opened) // BAR_S - 1
            self._push_filled(known, np.maximum(rest, 0), minutes, self.last_close[known])
        self.carried[seen] = self.held[seen]

    def _push_filled(self, who: Index, counts: Index, end: Index, price: FloatArray) -> None:
        """Push rows of minutes without a trade: the `counts` ones before minute number `end` of the session."""
        counts = np.minimum(counts, self.window)
        for done in range(int(counts.max(initial=0))):
            left = counts > done
            some, number = who[left], (end - counts + done)[left]
            self._push(some, Minute.without_trade(price[left], self.session_open[some], number))

    def _push(self, who: Index, minute: Minute) -> None:
        self.rows[who, self.position[who]] = minute_features(self.spec.features, minute, self._volume_profile)
        self.position[who] = (self.position[who] + 1) % self.window
        full = self.held[who] == self.window
        self.carried[who] = np.maximum(self.carried[who] - full, 0)  # a full ring drops its oldest row
        self.held[who] = np.minimum(self.held[who] + 1, self.window)

    def _ready(self, who: Index, ts: int) -> ReadyWindows:
        who = who[self.held[who] == self.window]
        turn = (self.position[who][:, None] + np.arange(self.window)) % self.window
        return ReadyWindows(
            ticker=who,
            as_of=np.full(len(who), ts, np.int64),
            last_price=self.last_close[who],
            carried=self.carried[who].astype(np.int32),
            rows=self.rows[who[:, None], turn],
        )


def _session_of(ts: int, sessions: Sequence[Session]) -> Session:
    for session in sessions:
        if session.open_ts <= ts < session.close_ts:
            return session
    raise ServingError(f"a bar at epoch second {ts} lies in no session of the stream's calendar")


def _concatenate(parts: Sequence[ReadyWindows], spec: Spec) -> ReadyWindows:
    if not parts:
        none = np.empty(0, np.int64)
        rows = np.empty((0, spec.window_min, len(spec.features)), np.float32)
        return ReadyWindows(none, none, none.astype(np.float64), none.astype(np.int32), rows)
    names = ("ticker", "as_of", "last_price", "carried", "rows")
    return ReadyWindows(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

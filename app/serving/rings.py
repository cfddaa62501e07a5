"""The state of one bucket of tickers: the last `window` feature rows of each, as one compact blob.

Bars are applied in time order with the feature function of training, so that a window held here equals
the window that the dataset phase cuts from the same bars, bit for bit. Missing minutes become the rows
that the dataset's grid gives them. A return never spans two sessions; the window itself may begin in the
session before, and `carried` says how many of its minutes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app import contract
from app.dataset.features import FILLED_ROW, FloatArray, Rows, minute_features
from app.dataset.windows import Index
from app.errors import ServingError
from app.sessions import Session

_NEVER = -1
_BLOB_VERSION = b"1"
_ARRAYS = ("rows", "position", "held", "carried", "last_ts", "last_close")


@dataclass(frozen=True)
class Ticks:
    """Bars of one micro-batch for one bucket, in any order.

    ticker: (n,) str; ts: int64 (n,) epoch seconds; open, close: float64 (n,) USD; volume: float64 (n,).
    """

    ticker: npt.NDArray[np.object_]
    ts: Index
    open: FloatArray
    close: FloatArray
    volume: FloatArray


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
    """Ring buffers of n tickers.

    rows: float32 (n, window, features), oldest row at `position`; held: int64 (n,) rows seen, at most
    window; carried: how many of them lie in an earlier session; last_ts, last_close: of the newest bar.
    late: bars that came after a newer one of their ticker, and were dropped.
    """

    tickers: tuple[str, ...]
    rows: Rows
    position: Index
    held: Index
    carried: Index
    last_ts: Index
    last_close: FloatArray
    late: int = 0

    @classmethod
    def empty(cls, tickers: Sequence[str], window: int) -> Rings:
        """Rings that have seen nothing."""
        n = len(tickers)
        return cls(
            tickers=tuple(tickers),
            rows=np.zeros((n, window, len(contract.FEATURES)), np.float32),
            position=np.zeros(n, np.int64),
            held=np.zeros(n, np.int64),
            carried=np.zeros(n, np.int64),
            last_ts=np.full(n, _NEVER, np.int64),
            last_close=np.zeros(n, np.float64),
        )

    @property
    def window(self) -> int:
        """Minutes that a window holds."""
        return int(self.rows.shape[1])

    def select(self, tickers: Sequence[str]) -> Rings:
        """The rings of these tickers; one that is not held starts empty."""
        place = {ticker: i for i, ticker in enumerate(self.tickers)}
        chosen = Rings.empty(tickers, self.window)
        known = np.array([i for i, ticker in enumerate(tickers) if ticker in place], np.int64)
        source = np.array([place[tickers[i]] for i in known], np.int64)
        for name in _ARRAYS:
            getattr(chosen, name)[known] = getattr(self, name)[source]
        return chosen

    def joined(self, other: Rings) -> Rings:
        """These rings and then those of `other`."""
        both = Rings.empty(self.tickers + other.tickers, self.window)
        both.late = self.late + other.late
        for name in _ARRAYS:
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
        return _concatenate(parts, self.window)

    def _apply_minute(self, who: Index, at: Index, ticks: Ticks, sessions: Sequence[Session]) -> ReadyWindows:
        """Bars of one minute, one for each ticker in `who`; `at` are their places in `ticks`."""
        ts = int(ticks.ts[at[0]]) if len(at) else 0
        fresh = self.last_ts[who] < ts
        self.late += int((~fresh).sum())
        who, at = who[fresh], at[fresh]
        if not len(who):
            return _concatenate([], self.window)
        session = _session_of(ts, sessions)
        starts_session = self.last_ts[who] < session.open_ts
        self._end_sessions(who[starts_session], session, sessions)
        since = np.where(starts_session, session.open_ts - contract.BAR_S, self.last_ts[who])
        self._push_filled(who, (ts - since) // contract.BAR_S - 1)
        previous = np.where(starts_session, ticks.open[at], self.last_close[who])
        # The session's first bar may come late: the open stands for the close before it, as on the grid.
        self._push(who, minute_features(ticks.close[at], previous, ticks.volume[at]))
        self.last_ts[who] = ts
        self.last_close[who] = ticks.close[at]
        return self._ready(who, ts)

    def _end_sessions(self, who: Index, new: Session, sessions: Sequence[Session]) -> None:
        """Fill the minutes that the tickers' earlier session still had, and count its rows as carried."""
        seen = who[self.last_ts[who] != _NEVER]
        earlier = [s for s in sessions if s.open_ts < new.open_ts]
        if earlier:
            opened = np.searchsorted([s.open_ts for s in earlier], self.last_ts[seen], side="right") - 1
            closes = np.array([s.close_ts for s in earlier])[np.maximum(opened, 0)]
            rest = (closes - self.last_ts[seen]) // contract.BAR_S - 1
            self._push_filled(seen, np.where(opened >= 0, np.maximum(rest, 0), 0))
        self.carried[seen] = self.held[seen]

    def _push_filled(self, who: Index, counts: Index) -> None:
        """Push `counts` rows of minutes without a trade."""
        counts = np.minimum(counts, self.window)
        for number in range(int(counts.max(initial=0))):
            some = who[counts > number]
            self._push(some, np.tile(FILLED_ROW, (len(some), 1)))

    def _push(self, who: Index, rows: Rows) -> None:
        self.rows[who, self.position[who]] = rows
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

    def to_bytes(self) -> bytes:
        """All rings as one Arrow IPC stream."""
        _, window, features = self.rows.shape
        table = pa.table(
            {
                "ticker": pa.array(self.tickers, pa.string()),
                "rows": pa.FixedSizeListArray.from_arrays(pa.array(self.rows.ravel()), window * features),
                "position": self.position,
                "held": self.held,
                "carried": self.carried,
                "last_ts": self.last_ts,
                "last_close": self.last_close,
            }
        ).replace_schema_metadata(
            {
                b"version": _BLOB_VERSION,
                b"window": str(window).encode(),
                b"features": ",".join(contract.FEATURES).encode(),
                b"late": str(self.late).encode(),
            }
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())

    @classmethod
    def from_bytes(cls, blob: bytes, window: int) -> Rings:
        """The inverse of to_bytes. ServingError when the blob was written for another window or features."""
        table = pa.ipc.open_stream(blob).read_all()
        about = table.schema.metadata
        written = (about[b"version"], int(about[b"window"]), about[b"features"].decode())
        wanted = (_BLOB_VERSION, window, ",".join(contract.FEATURES))
        if written != wanted:
            raise ServingError(
                f"the stream's state was written for a window of {written[1]} minutes of {written[2]}, the model"
                f" takes {wanted[1]} of {wanted[2]}: start the stream with a new run id"
            )
        n = len(table)
        rows = table["rows"].combine_chunks().values.to_numpy(zero_copy_only=False)
        return cls(
            tickers=tuple(table["ticker"].to_pylist()),
            rows=rows.reshape(n, window, len(contract.FEATURES)).copy(),
            **{n_: table[n_].to_numpy().copy() for n_ in ("position", "held", "carried", "last_ts", "last_close")},
            late=int(about[b"late"]),
        )


def _session_of(ts: int, sessions: Sequence[Session]) -> Session:
    for session in sessions:
        if session.open_ts <= ts < session.close_ts:
            return session
    raise ServingError(f"a bar at epoch second {ts} lies in no session of the stream's calendar")


def _concatenate(parts: Sequence[ReadyWindows], window: int) -> ReadyWindows:
    if not parts:
        none = np.empty(0, np.int64)
        rows = np.empty((0, window, len(contract.FEATURES)), np.float32)
        return ReadyWindows(none, none, none.astype(np.float64), none.astype(np.int32), rows)
    names = ("ticker", "as_of", "last_price", "carried", "rows")
    return ReadyWindows(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

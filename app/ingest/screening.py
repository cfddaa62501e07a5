"""The checks at the door: which rows of an answer are bars, and what is wrong with the others.

Nothing is repaired by guessing: a row that cannot be a bar is left out, counted by its fault, and its minute is
missing. An answer that lost rows this way, or that ends early, is `doubtful`: it is asked for again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from app import contract
from app.ingest.chart import RawBars
from app.ingest.ticker_bars import Ints, Mask, TickerBars
from app.sessions import Session

MAX_JUMP: Final = 1.5
"""A price so many times that of the minutes on both sides, or so small a part of it, is absurd. A price that stays
where it jumped to is news: Yahoo's own bars hold no more than 1.03 in 35 liquid tickers x 9 sessions."""
_NEIGHBOURS = 5
"""Minutes on either side whose median a price is compared with."""
STALE_RUN: Final = 10
"""So many minutes without volume and without any movement were not traded: a price was carried forward. The longest
run in the same bars is 9."""
_TOLERANCE = 1e-6
"""Prices are float32 at their origin: one rounding may push a close over its high."""
MISSING_END_MIN: Final = 10
"""An answer whose last so many minutes are missing may have been cut off."""
_MOST_SHARES = 2.0**53
_NOT_DOUBTFUL = frozenset({"unordered", "repeated", "forming", "future", "no volume"})


@dataclass(frozen=True)
class Screened:
    """The bars of one answer and what was found in it.

    faults: rows by fault. Left out are `future` and `forming` (the minute has not ended), `conflicting` (rows of one
    minute that differ), `not positive` (a price that is zero, negative or infinite), `inconsistent` (a high under or
    a low over the rest), `volume` (no whole number), `absurd` (see MAX_JUMP) and `stale` (see STALE_RUN). Put right
    are `unordered` and `repeated`. Kept as they are is `no volume`: such a run in which prices move.
    doubtful: asking again may give more.
    """

    bars: TickerBars
    faults: Counter[str] = field(default_factory=Counter)
    doubtful: bool = False


@np.errstate(over="ignore")  # a price of 1e308 is refused or not, without a warning
def screen(raw: RawBars, sessions: Sequence[Session], now_ts: float, complete_share: float) -> Screened:
    """The bars among the rows of an answer about these sessions (ascending), got at `now_ts` (epoch seconds).

    Rows without all four prices are minutes without a trade; rows outside the sessions or off the whole minute
    (Yahoo's running one) are nobody's. complete_share: a session with less of the minutes that are due is doubtful.
    """
    faults: Counter[str] = Counter()
    rows = _Rows(raw, faults)
    rows.keep(_in_sessions(rows.raw.ts, sessions) & (rows.raw.ts % contract.BAR_S == 0))
    rows.refuse("future", rows.raw.ts > now_ts)
    rows.refuse("forming", rows.raw.ts + contract.BAR_S > now_ts)
    rows.keep(_priced(rows.raw))
    rows.put_in_order()
    rows.refuse("not positive", ~_all_positive(rows.raw))
    rows.refuse("inconsistent", _inconsistent(rows.raw))
    volume = np.nan_to_num(rows.raw.volume, nan=0.0, posinf=np.inf)
    rows.refuse("volume", (volume < 0) | (volume > _MOST_SHARES) | (volume != np.floor(volume)))
    bars = rows.bars()
    for fault, of_bars in (("absurd", _absurd), ("stale", _stale)):
        bad = of_bars(bars, sessions)
        if bad.any():
            faults[fault] += int(bad.sum())
            bars = bars.part(~bad)
    if silent := sum(end - first for first, end in _silent_runs(bars, sessions)):
        faults["no volume"] += silent
    doubtful = bool(faults.keys() - _NOT_DOUBTFUL) or _incomplete(bars, sessions, now_ts, complete_share)
    return Screened(bars, faults, doubtful)


class _Rows:
    """The rows that are left, and the count of those that are not."""

    def __init__(self, raw: RawBars, faults: Counter[str]) -> None:
        self.raw = raw
        self._faults = faults

    def keep(self, rows: Mask | Ints) -> None:
        if rows.dtype != bool or not rows.all():
            self.raw = self.raw.part(rows)

    def refuse(self, fault: str, rows: Mask) -> None:
        if rows.any():
            self._faults[fault] += int(rows.sum())
            self.keep(~rows)

    def put_in_order(self) -> None:
        """Ascending in time, one row a minute; none where rows of a minute contradict each other."""
        steps = np.diff(self.raw.ts)
        if (steps > 0).all():
            return
        if (steps < 0).any():
            self._faults["unordered"] += int((steps < 0).sum())
            self.keep(np.argsort(self.raw.ts, kind="stable"))
        again = np.concatenate([[False], self.raw.ts[1:] == self.raw.ts[:-1]])
        differs = np.zeros(len(again), bool)
        for column in (self.raw.open, self.raw.high, self.raw.low, self.raw.close, self.raw.volume):
            differs[1:] |= again[1:] & ~((column[1:] == column[:-1]) | (np.isnan(column[1:]) & np.isnan(column[:-1])))
        conflicting = np.isin(self.raw.ts, self.raw.ts[differs])
        repeated = again & ~conflicting
        if repeated.any():
            self._faults["repeated"] += int(repeated.sum())
        if conflicting.any():
            self._faults["conflicting"] += int(conflicting.sum())
        self.keep(~(conflicting | repeated))

    def bars(self) -> TickerBars:
        raw = self.raw
        volume = np.nan_to_num(raw.volume, nan=0.0).astype(np.int64)
        return TickerBars(raw.ts, raw.open, raw.high, raw.low, raw.close, volume)


def due_minutes(session: Session, now_ts: float) -> int:
    """Minutes of the session that have ended by `now_ts`."""
    return int(min(session.minutes, max(0, (now_ts - session.open_ts) // contract.BAR_S)))


def _in_sessions(ts: Ints, sessions: Sequence[Session]) -> Mask:
    inside = np.zeros(len(ts), bool)
    for session in sessions:
        inside |= (ts >= session.open_ts) & (ts < session.close_ts)
    return inside


def _priced(raw: RawBars) -> Mask:
    return np.asarray(~np.isnan(np.stack([raw.open, raw.high, raw.low, raw.close])).any(axis=0))


def _all_positive(raw: RawBars) -> Mask:
    prices = np.stack([raw.open, raw.high, raw.low, raw.close])
    return np.asarray(((prices > 0) & (prices < np.inf)).all(axis=0))


def _inconsistent(raw: RawBars) -> Mask:
    highest, lowest = np.maximum(raw.open, raw.close), np.minimum(raw.open, raw.close)
    wrong: Mask = (raw.high < highest * (1 - _TOLERANCE)) | (raw.low > lowest * (1 + _TOLERANCE))
    return wrong


def _incomplete(bars: TickerBars, sessions: Sequence[Session], now_ts: float, complete_share: float) -> bool:
    newest_due = 0
    for session in sessions:
        due = due_minutes(session, now_ts)
        first, last = np.searchsorted(bars.ts, (session.open_ts, session.close_ts))
        if last - first < complete_share * due:
            return True
        if due:
            newest_due = session.open_ts + (due - 1) * contract.BAR_S
    return bool(newest_due and newest_due - int(bars.ts[-1]) >= MISSING_END_MIN * contract.BAR_S)


def _absurd(bars: TickerBars, sessions: Sequence[Session]) -> Mask:
    """Rows with a price that is MAX_JUMP above, or below, both what the minutes before and what those after it say.

    The others are judged again without them, until none is absurd: else of a price that comes and goes within
    minutes some would stay, beside their like.
    """
    bad = np.zeros(len(bars), bool)
    if not _far_apart(bars):
        return bad
    for rows in _rows_by_session(bars, sessions):
        left = np.arange(rows.start, rows.stop)
        while away := _away(bars.part(left)):
            bad[left[away]] = True
            left = np.delete(left, away)
    return bad


def _away(bars: TickerBars) -> list[int]:
    """The rows of one session's bars that are absurd beside the others."""
    if not _far_apart(bars):
        return []
    lowest, highest = np.minimum(bars.open, bars.low).tolist(), np.maximum(bars.open, bars.high).tolist()
    close: list[float] = bars.close.tolist()
    away = []
    for i in range(len(bars)):
        sides = (close[max(0, i - _NEIGHBOURS) : i], close[i + 1 : i + 1 + _NEIGHBOURS])
        usual = [_median(side) for side in sides if side]
        if usual and (highest[i] > MAX_JUMP * max(usual) or lowest[i] < min(usual) / MAX_JUMP):
            away.append(i)
    return away


def _median(prices: Sequence[float]) -> float:
    """Of a handful: numpy takes twenty times as long."""
    ordered, half = sorted(prices), len(prices) // 2
    return ordered[half] if len(prices) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _far_apart(bars: TickerBars) -> bool:
    """Whether any two prices are MAX_JUMP apart: else none is absurd."""
    if not len(bars):
        return False
    lowest, highest = min(float(p.min()) for p in bars.prices), max(float(p.max()) for p in bars.prices)
    return highest > MAX_JUMP * lowest


def _stale(bars: TickerBars, sessions: Sequence[Session]) -> Mask:
    """Rows of runs without volume in which the price never leaves the close before."""
    bad = np.zeros(len(bars), bool)
    for first, end in _silent_runs(bars, sessions):
        before = bars.close[max(0, first - 1) : end - 1]
        if not first:
            before = np.concatenate([bars.open[:1], before])
        unmoved: Mask = np.asarray((np.stack(bars.prices)[:, first:end] == before).all(axis=0))
        for begin, stop in _runs(unmoved):
            bad[first + begin : first + stop] = True
    return bad


def _silent_runs(bars: TickerBars, sessions: Sequence[Session]) -> Iterator[tuple[int, int]]:
    """First row and end of each run of at least STALE_RUN rows of one session without volume."""
    silent = bars.volume == 0
    if np.count_nonzero(silent) >= STALE_RUN:
        for rows in _rows_by_session(bars, sessions):
            for first, end in _runs(silent[rows]):
                yield rows.start + first, rows.start + end


def _runs(mask: Mask) -> Iterator[tuple[int, int]]:
    """First index and end of each run of at least STALE_RUN that are set."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0)).tolist()
    return ((first, end) for first, end in zip(edges[::2], edges[1::2], strict=True) if end - first >= STALE_RUN)


def _rows_by_session(bars: TickerBars, sessions: Sequence[Session]) -> Iterator[slice]:
    for session in sessions:
        first, end = np.searchsorted(bars.ts, (session.open_ts, session.close_ts))
        yield slice(int(first), int(end))

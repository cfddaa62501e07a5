"""What the dataset phase notices about stored bars before anything is learnt from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa

from app import contract
from app.dataset.features import FloatArray
from app.errors import BadBars
from app.ingest.bars import bar_starts
from app.sessions import Session, market_day, utc

FAULTY_ZERO_BARS = 10
"""A liquid ticker prints volume in nearly every minute: so many zero-volume bars in one session are a sign..."""
USUAL_ZERO_BARS = 2
"""... when its other sessions hold no more than this (median). A thin ticker always has them: no finding."""

Volumes = Mapping[tuple[str, date], FloatArray]


@dataclass(frozen=True)
class VolumeFault:
    """A ticker's session whose volume is not to be trusted; its prices are."""

    ticker: str
    day: date
    zero_bars: int
    total_ratio: float


def check_bars(bars: pa.Table) -> None:
    """Refuse bars that break the contract: ordered by (ticker, ts), unique, on whole minutes, finite, positive.

    Raises BadBars with the number of offenders, the first one and the setting that leaves out its day.
    """
    ticker = bars["ticker"].to_numpy(zero_copy_only=False)
    ts = bar_starts(bars)
    prices = np.stack([bars[name].to_numpy() for name in ("open", "high", "low", "close")])
    volume = bars["volume"].to_numpy()
    off_minute = bars["ts"].cast(pa.int64()).to_numpy() % (contract.BAR_S * 1000) != 0
    same = np.concatenate([[False], (ticker[1:] == ticker[:-1]) & (ts[1:] == ts[:-1])])
    earlier = (ticker[1:] < ticker[:-1]) | ((ticker[1:] == ticker[:-1]) & (ts[1:] < ts[:-1]))
    back = np.concatenate([[False], earlier])
    for what, bad in (
        ("non-finite prices", ~np.isfinite(prices).all(axis=0)),
        ("non-positive prices", (prices <= 0).any(axis=0)),
        ("negative volumes", volume < 0),
        ("bars off the whole minute", off_minute),
        ("duplicates of (ticker, ts)", same),
        ("bars out of order", back),
    ):
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            start = utc(int(ts[first]))
            raise BadBars(
                f"stored bars hold {int(bad.sum())} {what}, first {ticker[first]} at {start:%Y-%m-%d %H:%M} UTC:"
                f' ingest that day again, or leave it out with dataset.exclude_days=["{market_day(start)}"]'
            )


def volume_faults(volumes: Volumes, standard_days: Collection[date] | None = None) -> tuple[VolumeFault, ...]:
    """Sessions whose volume cannot be right: many zero-volume bars in a ticker that otherwise has none.

    volumes: float64 (bars,) of each (ticker, day). What is usual is the median over the ticker's sessions
    with few zero bars, so that faulty sessions do not set their own standard, and on `standard_days` (the
    training days, so that no later day has a say; all days by default). A ticker without such a session
    has no standard and no finding. `total_ratio` tells how far the session's total is off.
    """
    by_ticker: dict[str, list[tuple[date, int, int]]] = defaultdict(list)
    for (ticker, day), volume in volumes.items():
        by_ticker[ticker].append((day, int((volume == 0).sum()), int(volume.sum())))
    faults: list[VolumeFault] = []
    for ticker, sessions in by_ticker.items():
        clean = [
            (zeros, total)
            for day, zeros, total in sessions
            if zeros < FAULTY_ZERO_BARS and (standard_days is None or day in standard_days)
        ]
        if not clean or np.median([zeros for zeros, _ in clean]) > USUAL_ZERO_BARS:
            continue
        usual = float(np.median([total for _, total in clean]))
        faults += [
            VolumeFault(ticker, day, zeros, total / usual if usual else 0.0)
            for day, zeros, total in sessions
            if zeros >= FAULTY_ZERO_BARS
        ]
    return tuple(sorted(faults, key=lambda fault: (fault.day, fault.ticker)))


def too_short(bars_held: Mapping[tuple[str, date], int], needed: int) -> dict[tuple[str, date], int]:
    """Sessions of a ticker with too few bars for one window and its horizon."""
    return {key: held for key, held in bars_held.items() if held < needed}


def empty_days(bars_held: Mapping[tuple[str, date], int], sessions: Sequence[Session], needed: int) -> dict[date, int]:
    """Days on which no ticker has enough bars for one window, with the most that one has."""
    most = {session.day: 0 for session in sessions}
    for (_, day), held in bars_held.items():
        most[day] = max(most[day], held)
    return {day: held for day, held in most.items() if held < needed}

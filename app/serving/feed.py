"""The market as ticks: which session a feed brings, and the replay of a stored one, a poll for each of its minutes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any, Final

import numpy as np

from app import contract
from app.errors import ObjectMissing
from app.ingest.bars import bar_starts, read_bars
from app.ingest.plan import Plan
from app.progress import Report, silent
from app.serving.tick_writer import TickWriter
from app.sessions import Session, market_day, sessions_between
from app.storage import Bucket

FEED_SAYS: Final = "feed: "
"""How the feed begins a line on standard error about what it could not get."""
_LONGEST_CLOSURE = timedelta(days=10)


def served_session(plan: Plan, feed: str, now: datetime, market: Bucket) -> Session:
    """The session that a run's feed brings: replayed the plan's last one, else the one that is running or comes next.

    Once a feed has begun it stays with its session: a stream or a feed that starts again after the close means the
    same one.
    """
    if feed == "replay":
        return plan.sessions[-1]
    try:
        day = date.fromisoformat(market.get_json(contract.live_session_key(plan.run_id))["day"])
    except ObjectMissing:
        today = market_day(now)
        return next(s for s in sessions_between(today, today + _LONGEST_CLOSURE) if s.close_ts > now.timestamp())
    return sessions_between(day, day)[0]


def begin_session(run_id: str, session: Session, market: Bucket) -> None:
    """Let `served_session` know which session a feed of the running market brings."""
    market.put_json(contract.live_session_key(run_id), {"day": session.day.isoformat()})


def replay_session(
    plan: Plan,
    session: Session,
    market: Bucket,
    writer: TickWriter,
    *,
    speed: float,
    report: Report = silent,
    sleep: Callable[[float], None] = time.sleep,
    now_s: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Write the stored bars of `session` as ticks, `speed` times as fast as they happened.

    Each minute is a poll of its own, so that a repeated replay writes the same ones. Returns, and stores last, what
    was written: the stream takes it as the end of the feed.
    """
    bars = read_bars(market, [session], plan.tickers)
    ts = bar_starts(bars)
    started = now_s()
    minutes = np.unique(ts)
    for seq, minute in enumerate(minutes):
        due_s = (int(minute) - int(minutes[0])) / speed
        sleep(max(0.0, started + due_s - now_s()))
        writer.put(bars.filter(ts == minute))
        report(seq + 1, len(minutes), "minutes fed")
    return writer.end()

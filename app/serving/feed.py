"""The market as ticks: replays one stored session, one object for each minute that passed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from app import contract
from app.ingest.bars import bar_starts, read_bars
from app.ingest.plan import Plan
from app.progress import Report, silent
from app.sessions import Session, market_day, sessions_between
from app.storage import Bucket
from app.tables import put_table

_LONGEST_CLOSURE = timedelta(days=10)


def served_session(plan: Plan, feed: str, now: datetime) -> Session:
    """The session that a feed brings: the plan's last one, or, live, the one that is running or comes next."""
    if feed == "replay":
        return plan.sessions[-1]
    today = market_day(now)
    return next(s for s in sessions_between(today, today + _LONGEST_CLOSURE) if s.close_ts > now.timestamp())


def replay_session(
    plan: Plan,
    session: Session,
    market: Bucket,
    *,
    speed: float,
    report: Report = silent,
    sleep: Callable[[float], None] = time.sleep,
    now_s: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Write the bars of `session` as tick objects, `speed` times as fast as they happened.

    The keys are those of the minutes, so that a repeated replay writes the same objects. Returns, and
    stores last, what was written: the stream takes it as the end of the feed.
    """
    bars = read_bars(market, [session], plan.tickers)
    ts = bar_starts(bars)
    started = now_s()
    minutes = np.unique(ts)
    key = ""
    for seq, minute in enumerate(minutes):
        due_s = (int(minute) - int(minutes[0])) / speed
        sleep(max(0.0, started + due_s - now_s()))
        key = contract.ticks_key(plan.run_id, session.day, int(minute) * 1000, seq)
        put_table(market, key, bars.filter(ts == minute))
        report(seq + 1, len(minutes), "minutes fed")
    end = {"last_key": key, "objects": len(minutes), "ticks": len(bars), "day": session.day.isoformat()}
    market.put_json(contract.feed_end_key(plan.run_id), end)
    return end

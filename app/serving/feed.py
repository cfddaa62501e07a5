"""The market as ticks: which session a feed brings, and the replay of a stored one, a poll for each of its minutes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any, Final

import numpy as np

from app import contract
from app.errors import ObjectChanged
from app.ingest.bars import bar_starts, read_bars
from app.ingest.plan import Plan
from app.progress import Report, silent
from app.serving.tick_writer import TickWriter
from app.sessions import Session, market_day, sessions_between
from app.storage import JSON_TYPE, Bucket, to_json

FEED_SAYS: Final = "feed: "
"""How the feed begins a line on standard error about what it could not get."""
_LONGEST_CLOSURE = timedelta(days=10)


def served_session(plan: Plan, feed: str, now: datetime, market: Bucket) -> Session:
    """The session that a run's feed brings: replayed the plan's last one, else the one that is running or comes next.

    Of the running market it is chosen once for a run, by who comes first, and stored: a stream and a feed mean the same
    one, also when they start after the close.
    """
    if feed == "replay":
        return plan.sessions[-1]
    key, today = contract.live_session_key(plan.run_id), market_day(now)
    session = next(s for s in sessions_between(today, today + _LONGEST_CLOSURE) if s.close_ts > now.timestamp())
    try:
        market.put(key, to_json({"day": session.day.isoformat()}), JSON_TYPE, replaces="")
    except ObjectChanged:
        day = date.fromisoformat(market.get_json(key)["day"])
        return sessions_between(day, day)[0]
    return session


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

    Each minute is a poll of its own; a replay that is started again goes on after those that are written. Returns, and
    stores last, what was written: the stream takes it as the end of the feed.
    """
    bars = read_bars(market, [session], plan.tickers)
    ts = bar_starts(bars)
    minutes = np.unique(ts)
    done = int(np.isin(minutes, bar_starts(writer.resume())).sum())
    started = now_s()
    for seq, minute in enumerate(minutes[done:], done + 1):
        due_s = (int(minute) - int(minutes[done])) / speed
        sleep(max(0.0, started + due_s - now_s()))
        writer.put(bars.filter(ts == minute))
        report(seq, len(minutes), "minutes fed")
    return writer.end()

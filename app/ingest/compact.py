"""Few objects instead of many: the parts of a day become one.

A reader sees each bar at least once at any moment: the merged part is written before what it replaces is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from app import contract
from app.ingest.answers import backed, join_parts, put_part, read_part
from app.ingest.bars import again_if_gone, get_bars, latest_bars, part_order
from app.progress import Report
from app.sessions import Session
from app.storage import Bucket
from app.tables import put_table


def compact_days(market: Bucket, run_id: str, sessions: Sequence[Session], report: Report) -> int:
    """Merge the parts of each session's bars, and their answers, into one; returns how many parts are gone."""
    gone = 0
    for done, session in enumerate(sessions, start=1):
        gone += again_if_gone(partial(compact_day, market, run_id, session))
        report(done, len(sessions), "days")
    return gone


def compact_day(market: Bucket, run_id: str, session: Session) -> int:
    """Merge one day; a day of a single part is left as it is. Returns how many parts are gone.

    Raises ObjectMissing when another run merges the same day at the same time, and deletes what is read here.
    """
    bars = sorted(market.objects(contract.bars_day_prefix(session.day)), key=part_order)
    answers = market.keys(contract.answers_day_prefix(session.day))
    keys = [*answers, *(info.key for info in bars)]
    parts = {contract.part_of(key) for key in keys}
    if len(parts) <= 1:
        return 0
    merged = contract.compact_part(run_id)
    if bars:
        table = latest_bars(get_bars(market, info.key) for info in bars)
        put_table(market, contract.bars_key(session.day, merged), table)
    with_bars = {contract.part_of(info.key) for info in bars}
    counting = (
        backed(read_part(market, key), session.minutes, with_bars=contract.part_of(key) in with_bars) for key in answers
    )
    put_part(market, contract.answers_key(session.day, merged), join_parts(counting, session.minutes))
    for key in keys:
        if contract.part_of(key) != merged:
            market.delete(key)
    return len(parts - {merged})

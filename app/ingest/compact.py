"""Few objects instead of many: the parts of a day become one.

A reader sees each bar at least once at any moment: the merged part is written before what it replaces is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from app import contract
from app.errors import ObjectMissing
from app.ingest.answers import answers_of, backed, join_parts
from app.ingest.bars import again_if_gone, get_bars, latest_bars, part_order
from app.ingest.parts import put_part
from app.progress import Report
from app.sessions import Session
from app.storage import Bucket


def compact_days(market: Bucket, sessions: Sequence[Session], report: Report) -> int:
    """Merge the parts of each session's bars, and their answers, into one; returns how many parts are gone."""
    gone = 0
    for done, session in enumerate(sessions, start=1):
        with suppress(ObjectMissing):  # another run merges this very day, and ends it
            gone += again_if_gone(partial(compact_day, market, session))
        report(done, len(sessions), "days")
    return gone


def compact_day(market: Bucket, session: Session) -> int:
    """Merge one day; a day of a single part is left as it is. Returns how many parts are gone.

    Raises ObjectMissing when another run merges the same day at the same time, and deletes what is read here.
    """
    bars = sorted(market.objects(contract.bars_day_prefix(session.day)), key=part_order)
    with_bars = {contract.part_of(info.key) for info in bars}
    answers = market.keys(contract.answers_day_prefix(session.day))
    later = {contract.part_of(key) for key in market.keys(contract.bars_day_prefix(session.day))} - with_bars
    answers = [key for key in answers if contract.part_of(key) not in later]  # else they would go without their bars
    keys = [*answers, *(info.key for info in bars)]
    if len({contract.part_of(key) for key in keys}) <= 1:
        return 0
    table = latest_bars(get_bars(market, info.key) for info in bars)
    counting = (
        backed(answers_of(market.get_json(key)), session.minutes, with_bars=contract.part_of(key) in with_bars)
        for key in answers
    )
    merged = put_part(market, session, table, join_parts(counting, session.minutes), contract.compact_part)
    for key in keys:
        if contract.part_of(key) != merged:
            market.delete(key)
    return len({contract.part_of(key) for key in keys} - {merged})

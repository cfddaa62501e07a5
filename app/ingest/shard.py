"""One worker's part of the ingest: fetch what a shard lacks, store its bars, account for each of its tickers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from app import contract
from app.clock import Clock
from app.errors import ObjectMissing
from app.ingest.answers import backed, join_parts, put_part, read_answers, read_part
from app.ingest.bars import get_bars, latest_bars, to_table
from app.ingest.collect import Collected, collect_shard
from app.ingest.journal import Journal
from app.ingest.plan import Plan, Shard
from app.ingest.report import TickerReport
from app.sessions import Session
from app.settings import IngestSettings
from app.storage import Bucket
from app.tables import put_table


def ingest_shard(
    plan: Plan,
    shard: Shard,
    market: Bucket,
    settings: IngestSettings,
    *,
    yahoo_url: str | None,
    clock: Clock,
    on_ticker: Callable[[TickerReport], None] = lambda report: None,
) -> list[TickerReport]:
    """Fetch what S3 does not hold of a shard's tickers, write its bars by day and its manifest, return the reports.

    What is fetched is in S3 every few seconds, so that a shard that is killed and tried again asks only for the
    rest. on_ticker: called as each ticker is finished.
    """
    journal = Journal(market, plan.run_id, shard.name)
    days = {*(session.day.isoformat() for session in plan.sessions), *plan.closed_days}
    collected = {ticker: one for ticker, one in journal.read().items() if one.report.days.keys() == days}
    for one in collected.values():
        on_ticker(one.report)
    rest = Shard(shard.name, tuple(ticker for ticker in shard.tickers if ticker not in collected))
    unwritten: list[Collected] = []
    written_s = time.monotonic()

    def finished(one: Collected) -> None:
        nonlocal written_s
        on_ticker(one.report)
        unwritten.append(one)
        if time.monotonic() - written_s >= settings.journal_s:
            journal.add(unwritten)
            unwritten.clear()
            written_s = time.monotonic()

    collected |= collect_shard(
        plan,
        rest,
        settings,
        yahoo_url=yahoo_url,
        clock=clock,
        held=read_answers(market, plan.sessions, rest.tickers),
        on_ticker=finished,
    )
    part = contract.shard_part(plan.run_id, shard.name)
    for session in plan.sessions:  # one after another: two at a time take 100 MB more and no less time
        _write_day(market, session, part, collected)
    reports = [collected[ticker].report for ticker in shard.tickers]
    market.put_json(
        contract.manifest_key(plan.run_id, shard.name),
        {"shard": shard.name, "tickers": [report.to_json() for report in reports]},
    )
    journal.forget()
    return reports


def _write_day(market: Bucket, session: Session, part: str, collected: Mapping[str, Collected]) -> None:
    """Overwrite one day's part; what only the stored one holds is kept. The answers come after their bars."""
    fresh = to_table({ticker: one.bars.between(session.open_ts, session.close_ts) for ticker, one in collected.items()})
    answers = {ticker: one.answers[session.day] for ticker, one in collected.items() if session.day in one.answers}
    if not answers:
        return
    bars_key, answers_key = contract.bars_key(session.day, part), contract.answers_key(session.day, part)
    try:
        fresh, with_bars = latest_bars([get_bars(market, bars_key), fresh]), True
    except ObjectMissing:  # the first time
        with_bars = False
    if len(fresh):
        put_table(market, bars_key, fresh)
    known = backed(read_part(market, answers_key), session.minutes, with_bars=with_bars)
    put_part(market, answers_key, join_parts([known, answers], session.minutes))

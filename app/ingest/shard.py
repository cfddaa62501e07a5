"""One worker's part of the ingest: fetch what a shard lacks, store its bars, account for each of its tickers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from app import contract
from app.clock import Clock
from app.ingest.answers import joined_by_day, read_answers
from app.ingest.bars import to_table
from app.ingest.collect import Collected, collect_shard
from app.ingest.journal import Fetched, Journal
from app.ingest.parts import put_part
from app.ingest.plan import Plan, Shard
from app.ingest.report import TickerReport
from app.ingest.ticker_bars import latest
from app.sessions import Session
from app.settings import IngestSettings
from app.storage import Bucket


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
    begun = journal.read()
    with _Journalist(journal, settings.journal_s) as journalist:

        def finished(one: Collected) -> None:
            on_ticker(one.report)
            ticker = one.report.ticker
            if one.answers:  # the journal's newest entry of a ticker counts alone
                journalist.take(ticker, _joined(plan, begun.get(ticker), one))

        collected = collect_shard(
            plan,
            shard,
            settings,
            yahoo_url=yahoo_url,
            clock=clock,
            held=read_answers(market, plan.sessions, shard.tickers),
            begun={ticker: one.answers for ticker, one in begun.items()},
            on_ticker=finished,
        )
    fetched = {ticker: _joined(plan, begun.get(ticker), one) for ticker, one in collected.items()}
    for session in plan.sessions:  # one after another: two at a time take 100 MB more and no less time
        _write_day(market, session, partial(contract.shard_part, plan.run_id, shard.name), fetched)
    reports = [collected[ticker].report for ticker in shard.tickers]
    market.put_json(
        contract.manifest_key(plan.run_id, shard.name),
        {"shard": shard.name, "tickers": [report.to_json() for report in reports]},
    )
    journal.forget()
    return reports


class _Journalist:
    """Writes what is finished into the journal now and then, beside the requests; an error of it ends the shard."""

    def __init__(self, journal: Journal, every_s: float) -> None:
        self._journal, self._every_s = journal, every_s
        self._unwritten: dict[str, Fetched] = {}
        self._written_s = time.monotonic()
        self._writing: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")

    def __enter__(self) -> _Journalist:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown()
        if self._writing is not None and error[0] is None:
            self._writing.result()

    def take(self, ticker: str, one: Fetched) -> None:
        """Remember it, and write if it is time and the entry before is written."""
        self._unwritten[ticker] = one
        busy = self._writing is not None and not self._writing.done()
        if busy or time.monotonic() - self._written_s < self._every_s:
            return
        if self._writing is not None:
            self._writing.result()
        self._writing = self._thread.submit(self._journal.add, self._unwritten)
        self._unwritten = {}
        self._written_s = time.monotonic()


def _joined(plan: Plan, begun: Fetched | None, one: Collected) -> Fetched:
    """What was fetched of a ticker before the shard was killed, and after."""
    if begun is None:
        return Fetched(one.bars, one.answers)
    minutes = {session.day: session.minutes for session in plan.sessions}
    return Fetched(latest([begun.bars, one.bars]), joined_by_day(begun.answers, one.answers, minutes))


def _write_day(market: Bucket, session: Session, name: Callable[[str], str], fetched: Mapping[str, Fetched]) -> None:
    """Write one day's part, unless nothing was asked about it."""
    answers = {ticker: one.answers[session.day] for ticker, one in fetched.items() if session.day in one.answers}
    if answers:
        bars = {ticker: one.bars.between(session.open_ts, session.close_ts) for ticker, one in fetched.items()}
        put_part(market, session, to_table(bars), answers, name)

"""One worker's requests: all that a shard still lacks, many in flight, on one asyncio loop. S3 is not needed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from types import MappingProxyType

from app.clock import Clock
from app.errors import YahooError
from app.ingest.answers import Answers, DayAnswer, joined_by_day
from app.ingest.chart import Delisted
from app.ingest.counts import FetchCount
from app.ingest.direct_client import DirectClient
from app.ingest.fetch import Answer, Fetcher
from app.ingest.minutes import held_from_text, held_minutes, missing_text
from app.ingest.pacing import Pacer
from app.ingest.plan import Plan, Shard
from app.ingest.poll import Poller
from app.ingest.report import Status, TickerReport, make_report
from app.ingest.ticker_bars import TickerBars, latest
from app.ingest.yahoo_session import Elsewhere
from app.ingest.yfinance_client import YFinanceClient
from app.sessions import Session
from app.settings import IngestSettings

_NOTHING: Mapping[date, DayAnswer] = MappingProxyType({})
_CLIENTS: Mapping[str, type[DirectClient | YFinanceClient]] = {"direct": DirectClient, "yfinance": YFinanceClient}


@dataclass(frozen=True)
class Collected:
    """What was fetched of one ticker.

    bars: fresh ones; answers: about the days that were asked for; report: on all days, with what was held before.
    """

    bars: TickerBars
    answers: Mapping[date, DayAnswer]
    report: TickerReport


def collect_shard(
    plan: Plan,
    shard: Shard,
    settings: IngestSettings,
    *,
    yahoo_url: str | None,
    clock: Clock,
    held: Answers | None = None,
    begun: Answers | None = None,
    on_ticker: Callable[[Collected], None] = lambda collected: None,
) -> dict[str, Collected]:
    """Fetch what is not held of a shard's tickers, in the order of the shard.

    held: answers of earlier runs; begun: of this one, before it was killed. on_ticker: called as each ticker is
    finished.
    """

    async def collect() -> dict[str, Collected]:
        async with open_fetcher(settings, yahoo_url=yahoo_url, clock=clock, workers=plan.workers) as fetcher:
            return await collect_tickers(plan, shard.tickers, fetcher, held or {}, begun or {}, on_ticker)

    return asyncio.run(collect())


@asynccontextmanager
async def open_fetcher(
    settings: IngestSettings, *, yahoo_url: str | None, clock: Clock, workers: int = 1
) -> AsyncIterator[Fetcher]:
    """The fetcher of one of `workers` workers that share the budget of requests."""
    make = _CLIENTS[settings.client]
    async with make(Elsewhere.at(yahoo_url), in_flight=settings.in_flight, timeout_s=settings.timeout_s) as client:
        yield Fetcher(client, settings, clock, Pacer(settings.rate_per_s / workers))


@asynccontextmanager
async def open_poller(
    settings: IngestSettings, timeout_s: float, *, yahoo_url: str | None, clock: Clock
) -> AsyncIterator[Poller]:
    """A Market that has the whole budget of requests; timeout_s: of one poll."""
    async with open_fetcher(settings, yahoo_url=yahoo_url, clock=clock) as fetcher:
        yield Poller(fetcher, timeout_s)


async def collect_tickers(
    plan: Plan,
    tickers: Sequence[str],
    fetcher: Fetcher,
    held: Answers,
    begun: Answers,
    on_ticker: Callable[[Collected], None],
) -> dict[str, Collected]:
    """As collect_shard, with a fetcher of one's own."""

    async def one(ticker: str) -> Collected:
        collected = await collect_ticker(plan, ticker, fetcher, held.get(ticker, {}), begun.get(ticker, {}))
        on_ticker(collected)
        return collected

    try:
        async with asyncio.TaskGroup() as group:
            tasks = {ticker: group.create_task(one(ticker)) for ticker in tickers}
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None  # as on_ticker raised it: the others say the same
    return {ticker: task.result() for ticker, task in tasks.items()}


async def collect_ticker(
    plan: Plan,
    ticker: str,
    fetcher: Fetcher,
    held: Mapping[date, DayAnswer],
    begun: Mapping[date, DayAnswer] = _NOTHING,
) -> Collected:
    """One ticker: its fresh bars, what was answered about the days that were asked for, and its report."""
    share = fetcher.settings.complete_share
    minutes = {session.day: session.minutes for session in plan.sessions}
    before = joined_by_day(held, begun, minutes)
    spans = wanted_spans(plan, begun if fetcher.settings.refetch else before, share)
    count = FetchCount()
    answered = await asyncio.gather(*(_answer(fetcher, ticker, span, count) for span in spans))
    answers: dict[date, DayAnswer] = {}
    errors: dict[date, tuple[Status, str]] = {}
    faults: Counter[str] = Counter()
    parts = []
    for span, outcome in zip(spans, answered, strict=True):
        if isinstance(outcome, Answer):
            parts.append(outcome.bars)
            faults += outcome.faults
            for session in span:
                missing = missing_text(held_minutes(outcome.bars.ts, session))
                answers[session.day] = DayAnswer(outcome.asked_ts, outcome.sure, missing)
        else:
            status: Status = "delisted" if isinstance(outcome, Delisted) else "failed"
            errors |= {session.day: (status, str(outcome)) for session in span}
    known = joined_by_day(before, answers, minutes)
    report = make_report(ticker, plan.sessions, plan.closed_days, known, errors, share, count)
    report.held = sum(int(held_from_text(held[day].missing, minutes[day]).sum()) for day in minutes if day in held)
    report.faults = dict(faults)
    return Collected(latest(parts), answers, report)


async def _answer(
    fetcher: Fetcher, ticker: str, span: Sequence[Session], count: FetchCount
) -> Answer | YahooError | Delisted:
    try:
        return await fetcher.fetch(ticker, span, count)
    except (YahooError, Delisted) as exc:
        return exc


def wanted_spans(plan: Plan, held: Mapping[date, DayAnswer], complete_share: float) -> list[tuple[Session, ...]]:
    """The plan's requests without their settled sessions: one for each run of sessions that follow each other."""
    wanted = []
    for span in plan.spans:
        sessions = [session for session in plan.sessions if span.start_ts <= session.open_ts < span.end_ts]
        for settled, run in groupby(sessions, lambda s: s.day in held and held[s.day].settles(s, complete_share)):
            if not settled:
                wanted.append(tuple(run))
    return wanted

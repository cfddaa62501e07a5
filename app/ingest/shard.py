"""One worker's part of the ingest: fetch a shard's tickers, store their bars, account for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from datetime import date
from itertools import groupby
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app import contract
from app.errors import ObjectMissing, YahooError
from app.ingest.bars import bar_starts, empty_bars, latest_bars
from app.ingest.fetch import FetchCount, Fetcher, UnknownTicker
from app.ingest.plan import Plan, Shard, Span, is_complete
from app.ingest.yahoo_session import YahooSession
from app.sessions import Session
from app.settings import IngestSettings
from app.storage import Bucket
from app.tables import get_table, put_table

Status = Literal["complete", "partial", "empty", "unknown", "failed"]


@dataclass
class TickerReport:
    """What one ticker got, and why not.

    complete: at least `complete_share` of every session's minutes; partial: less of some session. In both
    cases `missing` says how many minutes of which day have no bar;
    empty: Yahoo knows it and has no bar; unknown: Yahoo says it has no such symbol; failed: `error`.
    rows: bars of the plan's sessions; `held` of them lay in S3 before, and their spans were not asked for.
    """

    ticker: str
    status: Status
    rows: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    error: str = ""
    fetch: FetchCount = field(default_factory=FetchCount)
    held: int = 0

    def to_json(self) -> dict[str, Any]:
        """As stored in the manifest."""
        return asdict(self)


def ingest_shard(
    plan: Plan,
    shard: Shard,
    market: Bucket,
    settings: IngestSettings,
    *,
    yahoo_url: str | None,
    on_ticker: Callable[[str], None] = lambda ticker: None,
) -> list[TickerReport]:
    """Fetch what S3 does not hold of a shard's tickers, write its bars by day and its manifest, return the reports.

    on_ticker: called with each ticker as it is finished. The process must have called configure_yfinance.
    """
    fetcher = Fetcher(YahooSession(yahoo_url), settings)
    held = _held_bars(market, plan.sessions, shard)
    fetched = _fetch_all(plan, shard, fetcher, held, on_ticker)
    bars = {ticker: table for ticker, (table, _) in fetched.items()}
    reports = [report for _, report in fetched.values()]
    _write_bars(market, plan.sessions, shard, bars)
    market.put_json(
        contract.manifest_key(plan.run_id, shard.name),
        {"shard": shard.name, "tickers": [report.to_json() for report in reports]},
    )
    return reports


def _fetch_all(
    plan: Plan, shard: Shard, fetcher: Fetcher, held: pa.Table, on_ticker: Callable[[str], None]
) -> dict[str, tuple[pa.Table, TickerReport]]:
    def one(ticker: str) -> tuple[pa.Table, TickerReport]:
        own = held.filter(pc.equal(held["ticker"], ticker))
        result = fetch_ticker(plan, ticker, fetcher, fetcher.settings.complete_share, own)
        on_ticker(ticker)
        return result

    pool = ThreadPoolExecutor(max_workers=fetcher.settings.threads, thread_name_prefix="yahoo")
    try:
        futures: dict[str, Future[tuple[pa.Table, TickerReport]]] = {t: pool.submit(one, t) for t in shard.tickers}
        wait(futures.values(), return_when=FIRST_EXCEPTION)
        return {ticker: future.result() for ticker, future in futures.items()}
    finally:
        pool.shutdown(cancel_futures=True)


def fetch_ticker(
    plan: Plan, ticker: str, fetcher: Fetcher, complete_share: float = 1.0, held: pa.Table | None = None
) -> tuple[pa.Table, TickerReport]:
    """One ticker: its fresh bars (those of the spans that were asked for and answered) and its report.

    held: bars that are stored already, ascending; only sessions that they do not complete are asked for.
    """
    held = empty_bars() if held is None else held
    count = FetchCount()
    parts: list[pa.Table] = []
    error = ""
    for span in _wanted(plan, held, complete_share):
        try:
            parts.append(fetcher.fetch(ticker, span, count))
        except UnknownTicker as exc:
            return empty_bars(), TickerReport(ticker, "unknown", error=str(exc), fetch=count)
        except YahooError as exc:
            error = str(exc)
            break  # what failed after all its attempts tells that the next span would fail as well
    fresh = pa.concat_tables(parts) if parts else empty_bars()
    bars = latest_bars([held, fresh]) if len(held) else fresh
    missing = missing_minutes(bars, plan.sessions)
    complete = is_complete(missing, plan.sessions, complete_share)
    status: Status = "failed" if error else "empty" if not len(bars) else "complete" if complete else "partial"
    return fresh, TickerReport(ticker, status, len(bars), missing, error, count, len(held))


def _wanted(plan: Plan, held: pa.Table, complete_share: float) -> Iterator[Span]:
    """The plan's spans without their complete sessions: one for each run of sessions that follow each other."""
    missing = missing_minutes(held, plan.sessions)
    for span in plan.spans:
        sessions = [session for session in plan.sessions if span.start_ts <= session.open_ts < span.end_ts]
        for complete, run in groupby(sessions, lambda session: is_complete(missing, [session], complete_share)):
            if not complete:
                first, *rest = run
                yield Span(first.open_ts, (rest or [first])[-1].close_ts)


def _held_bars(market: Bucket, sessions: Sequence[Session], shard: Shard) -> pa.Table:
    """What an earlier run of the same shard stored of these sessions, ordered by ticker and ts."""
    return latest_bars([empty_bars(), *(_stored(market, session.day, shard) for session in sessions)])


def missing_minutes(bars: pa.Table, sessions: Sequence[Session]) -> dict[str, int]:
    """Minutes without a bar of one ticker, by day; days that lack none are left out."""
    ts = bar_starts(bars)
    found: dict[str, int] = {}
    for session in sessions:
        held = int(np.searchsorted(ts, session.close_ts) - np.searchsorted(ts, session.open_ts))
        if held < session.minutes:
            found[session.day.isoformat()] = session.minutes - held
    return found


def _write_bars(market: Bucket, sessions: Sequence[Session], shard: Shard, bars: Mapping[str, pa.Table]) -> None:
    table = pa.concat_tables(bars.values())
    ts = bar_starts(table)
    for session in sessions:
        inside = (ts >= session.open_ts) & (ts < session.close_ts)
        if inside.any():
            _merge_day(market, session.day, shard, table.filter(pa.array(inside)))


def _merge_day(market: Bucket, day: date, shard: Shard, fresh: pa.Table) -> None:
    """Overwrite the shard's object of one day; bars that only the stored one holds are kept."""
    put_table(market, contract.bars_key(day, shard.name), latest_bars([_stored(market, day, shard), fresh]))


def _stored(market: Bucket, day: date, shard: Shard) -> pa.Table:
    """The shard's object of one day; no bars where there is none."""
    schema = empty_bars().schema
    try:
        return get_table(market, contract.bars_key(day, shard.name)).select(schema.names).cast(schema)
    except ObjectMissing:
        return empty_bars()

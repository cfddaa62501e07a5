"""One worker's part of the ingest: fetch a shard's tickers, store their bars, account for each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from app import contract
from app.errors import ObjectMissing, YahooError
from app.ingest.bars import bar_starts, empty_bars, latest_bars
from app.ingest.fetch import FetchCount, Fetcher, UnknownTicker
from app.ingest.plan import Plan, Shard, is_complete
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
    """

    ticker: str
    status: Status
    rows: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    error: str = ""
    fetch: FetchCount = field(default_factory=FetchCount)

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
    """Fetch all tickers of `shard`, write its bars by day and its manifest, return the reports.

    on_ticker: called with each ticker as it is finished. The process must have called configure_yfinance.
    """
    fetcher = Fetcher(YahooSession(yahoo_url), settings)
    fetched = _fetch_all(plan, shard, fetcher, settings.threads, on_ticker)
    bars = {ticker: table for ticker, (table, _) in fetched.items()}
    reports = [report for _, report in fetched.values()]
    _write_bars(market, plan.sessions, shard, bars)
    market.put_json(
        contract.manifest_key(plan.run_id, shard.name),
        {"shard": shard.name, "tickers": [report.to_json() for report in reports]},
    )
    return reports


def _fetch_all(
    plan: Plan, shard: Shard, fetcher: Fetcher, threads: int, on_ticker: Callable[[str], None]
) -> dict[str, tuple[pa.Table, TickerReport]]:
    def one(ticker: str) -> tuple[pa.Table, TickerReport]:
        result = fetch_ticker(plan, ticker, fetcher, fetcher.settings.complete_share)
        on_ticker(ticker)
        return result

    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="yahoo")
    try:
        futures: dict[str, Future[tuple[pa.Table, TickerReport]]] = {t: pool.submit(one, t) for t in shard.tickers}
        wait(futures.values(), return_when=FIRST_EXCEPTION)
        return {ticker: future.result() for ticker, future in futures.items()}
    finally:
        pool.shutdown(cancel_futures=True)


def fetch_ticker(
    plan: Plan, ticker: str, fetcher: Fetcher, complete_share: float = 1.0
) -> tuple[pa.Table, TickerReport]:
    """All spans of one ticker: its bars (those of the spans that answered) and its report."""
    count = FetchCount()
    parts: list[pa.Table] = []
    error = ""
    for span in plan.spans:
        try:
            parts.append(fetcher.fetch(ticker, span, count))
        except UnknownTicker as exc:
            return empty_bars(), TickerReport(ticker, "unknown", error=str(exc), fetch=count)
        except YahooError as exc:
            error = str(exc)
            break  # what failed after all its attempts tells that the next span would fail as well
    bars = pa.concat_tables(parts) if parts else empty_bars()
    missing = missing_minutes(bars, plan.sessions)
    complete = is_complete(missing, plan.sessions, complete_share)
    status: Status = "failed" if error else "empty" if not len(bars) else "complete" if complete else "partial"
    return bars, TickerReport(ticker, status, len(bars), missing, error, count)


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
    key = contract.bars_key(day, shard.name)
    try:
        stored = get_table(market, key)
    except ObjectMissing:
        stored = empty_bars()
    put_table(market, key, latest_bars([stored.select(fresh.column_names).cast(fresh.schema), fresh]))

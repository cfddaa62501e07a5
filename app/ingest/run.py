"""The whole ingest on one machine: plan, workers, coverage. A Batch array runs one shard a job instead."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime
from multiprocessing.queues import SimpleQueue
from typing import Any

from app import contract
from app.errors import ObjectMissing, UniverseError, YahooError
from app.ingest.plan import Plan, make_plan
from app.ingest.shard import ingest_shard
from app.progress import Report
from app.sessions import recent_sessions
from app.settings import IngestSettings
from app.storage import Bucket


def write_plan(run_id: str, universe: Sequence[str], market: Bucket, settings: IngestSettings, now: datetime) -> Plan:
    """Plan the run and store the plan."""
    sessions = recent_sessions(now, settings.days)
    plan = make_plan(run_id, universe, sessions, shards=settings.shards, request_days=settings.request_days)
    market.put_json(contract.plan_key(run_id), plan.to_json())
    return plan


def read_plan(run_id: str, market: Bucket) -> Plan:
    """The stored plan of a run."""
    return Plan.from_json(market.get_json(contract.plan_key(run_id)))


def run_shards(plan: Plan, market_bucket: str, settings: IngestSettings, yahoo_url: str | None, report: Report) -> None:
    """Ingest every shard, `settings.processes` at a time, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    finished: SimpleQueue[str] = context.SimpleQueue()
    total = len(plan.tickers)
    watcher = threading.Thread(target=_watch, args=(finished, total, report), daemon=True)
    watcher.start()
    workers = min(settings.processes, len(plan.shards))
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(finished,)) as pool:
        jobs = [
            pool.submit(_work, plan, index, market_bucket, settings, yahoo_url) for index in range(len(plan.shards))
        ]
        try:
            for job in jobs:
                job.result()
        except BrokenProcessPool as exc:
            raise YahooError("an ingest worker was killed: start the phase again, what is stored is kept") from exc
        finally:
            pool.shutdown(cancel_futures=True)
            finished.put("")
            watcher.join()


def write_coverage(plan: Plan, market: Bucket, settings: IngestSettings) -> dict[str, Any]:
    """Join the manifests into the run's coverage, store it and judge it.

    Returns the coverage. Raises UniverseError for unknown tickers (unless they are to be skipped) and
    YahooError when fewer known tickers than `min_coverage` have bars.
    """
    tickers = {t["ticker"]: t for shard in plan.shards for t in _manifest(plan, shard.name, market)}
    early = _days_before_data(plan, tickers)
    for ticker in tickers.values():
        ticker["missing"] = {day: count for day, count in ticker["missing"].items() if day not in early}
        if ticker["status"] == "partial" and not ticker["missing"]:
            ticker["status"] = "complete"
    counts = Counter(str(t["status"]) for t in tickers.values())
    coverage = {
        "days": [day for session in plan.sessions if (day := session.day.isoformat()) not in early],
        "days_before_data": early,
        "requested": len(tickers),
        "statuses": {status: counts[status] for status in ("complete", "partial", "empty", "unknown", "failed")},
        "rows": sum(int(t["rows"]) for t in tickers.values()),
        "requests": sum(int(t["fetch"]["requests"]) for t in tickers.values()),
        "retries": sum(int(t["fetch"]["retries"]) for t in tickers.values()),
        "tickers": [tickers[ticker] for ticker in sorted(tickers)],
    }
    market.put_json(contract.coverage_key(plan.run_id), coverage)
    _judge(tickers, settings)
    return coverage


def _days_before_data(plan: Plan, tickers: dict[str, dict[str, Any]]) -> list[str]:
    """The first sessions of the plan on which no ticker has a bar: older than what the server holds."""
    served = [t for t in tickers.values() if t["rows"]]
    early: list[str] = []
    for session in plan.sessions:
        day = session.day.isoformat()
        if not all(t["missing"].get(day) == session.minutes for t in served):
            break
        early.append(day)
    return early


def _manifest(plan: Plan, shard: str, market: Bucket) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = market.get_json(contract.manifest_key(plan.run_id, shard))["tickers"]
    except ObjectMissing as exc:
        raise YahooError(f"shard {shard} left no manifest: run `stockflow ingest` for it again") from exc
    return found


def _judge(tickers: dict[str, dict[str, Any]], settings: IngestSettings) -> None:
    unknown = sorted(name for name, t in tickers.items() if t["status"] == "unknown")
    if unknown and settings.on_unknown == "fail":
        raise UniverseError(
            f"Yahoo knows no ticker {_some(unknown)}: correct the universe, or set ingest.on_unknown=skip"
        )
    known = len(tickers) - len(unknown)
    without = {name: t["error"] or "no bars" for name, t in tickers.items() if t["status"] in {"failed", "empty"}}
    if not known or 1 - len(without) / known < settings.min_coverage:
        name, error = next(iter(sorted(without.items())), ("", "no known ticker"))
        raise YahooError(
            f"{len(without)} of {known} tickers have no complete answer, first {name}: {error}"
            " (wait and run again, or lower ingest.min_coverage)"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# --- inside a worker process ---------------------------------------------------------------------

_finished: SimpleQueue[str] | None = None


def _start_worker(finished: SimpleQueue[str]) -> None:
    global _finished  # noqa: PLW0603  the pool's initializer can hand nothing else to its jobs
    _finished = finished


def _work(plan: Plan, index: int, market_bucket: str, settings: IngestSettings, yahoo_url: str | None) -> None:
    finished = _finished
    tell = finished.put if finished is not None else (lambda ticker: None)
    ingest_shard(plan, plan.shards[index], Bucket(market_bucket), settings, yahoo_url=yahoo_url, on_ticker=tell)


def _watch(finished: SimpleQueue[str], total: int, report: Report) -> None:
    done = 0
    report(done, total, "tickers")
    while finished.get():
        done += 1
        report(done, total, "tickers")

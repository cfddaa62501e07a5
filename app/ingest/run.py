"""The workers of an ingest on one machine, each in a process of its own. A Batch array runs one shard a job instead."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from app.errors import SettingsError, YahooError
from app.ingest.fetch import configure_yfinance
from app.ingest.plan import Plan
from app.ingest.shard import ingest_shard
from app.processes import die_with_parent
from app.progress import Report
from app.settings import IngestSettings
from app.storage import Bucket


def run_shards(plan: Plan, market_bucket: str, settings: IngestSettings, yahoo_url: str | None, report: Report) -> None:
    """Ingest every shard, `settings.processes` at a time, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    finished: SimpleQueue[str] = context.SimpleQueue()
    total = len(plan.tickers)
    watcher = threading.Thread(target=_watch, args=(finished, total, report), daemon=True)
    watcher.start()
    workers = min(settings.processes, len(plan.shards))
    with (
        tempfile.TemporaryDirectory(prefix="stockflow-yfinance-", ignore_cleanup_errors=True) as cache,
        ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(finished, cache)) as pool,
    ):
        jobs = [
            pool.submit(_work, plan, index, market_bucket, settings, yahoo_url) for index in range(len(plan.shards))
        ]
        try:
            for job in jobs:
                job.result()
        except BrokenProcessPool as exc:
            raise YahooError("an ingest worker was killed: start the phase again, what is stored is kept") from exc
        except BaseException:
            for worker in multiprocessing.active_children():  # the pool itself would wait for their shards
                worker.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            finished.put("")
            watcher.join()


def run_one_shard(plan: Plan, index: int, market: Bucket, settings: IngestSettings, yahoo_url: str | None) -> None:
    """Ingest one shard of a plan in this process; SettingsError when the plan has no such shard."""
    if not 0 <= index < len(plan.shards):
        raise SettingsError(f"the plan of run {plan.run_id} has shards 0 to {len(plan.shards) - 1}, not {index}")
    with tempfile.TemporaryDirectory(prefix="stockflow-yfinance-", ignore_cleanup_errors=True) as cache:
        configure_yfinance(Path(cache))
        ingest_shard(plan, plan.shards[index], market, settings, yahoo_url=yahoo_url)


# --- inside a worker process ---------------------------------------------------------------------

_finished: SimpleQueue[str] | None = None


def _start_worker(finished: SimpleQueue[str], cache: str) -> None:
    global _finished  # noqa: PLW0603  the pool's initializer can hand nothing else to its jobs
    _finished = finished
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a traceback
    own = Path(cache, str(os.getpid()))
    own.mkdir()
    configure_yfinance(own)


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

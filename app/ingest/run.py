"""The workers of an ingest on one machine, each in a process of its own. A Batch array runs one shard a job instead."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from app import contract
from app.errors import SettingsError, YahooError
from app.ingest.fetch import configure_yfinance
from app.ingest.plan import Plan
from app.ingest.shard import TickerReport, ingest_shard
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


def is_last_attempt(environ: Mapping[str, str]) -> bool:
    """Whether nobody tries this shard again: outside Batch, or at the last of the attempts that Batch makes.

    Raises SettingsError when one of the two variables is not a number.
    """
    attempt, attempts = (environ.get(name) for name in (contract.ENV_JOB_ATTEMPT, contract.ENV_SHARD_ATTEMPTS))
    if not (attempt and attempts):
        return True
    try:
        return int(attempt) >= int(attempts)
    except ValueError as exc:
        raise SettingsError(
            f"{contract.ENV_JOB_ATTEMPT}={attempt!r} and {contract.ENV_SHARD_ATTEMPTS}={attempts!r} must be integers"
        ) from exc


def run_one_shard(
    plan: Plan,
    index: int,
    market: Bucket,
    settings: IngestSettings,
    yahoo_url: str | None,
    report: Report,
    *,
    last_attempt: bool = True,
) -> None:
    """Ingest one shard of a plan in this process; SettingsError when the plan has no such shard.

    A ticker without a complete answer is a YahooError, its shard's bars and manifest stored, so that the shard is
    tried again. Not at the last attempt: whether what it left is enough is judged from the coverage of all shards.
    """
    if not 0 <= index < len(plan.shards):
        raise SettingsError(f"the plan of run {plan.run_id} has shards 0 to {len(plan.shards) - 1}, not {index}")
    with tempfile.TemporaryDirectory(prefix="stockflow-yfinance-", ignore_cleanup_errors=True) as cache:
        configure_yfinance(Path(cache))
        tell = _counting(len(plan.shards[index].tickers), report)
        reports = ingest_shard(plan, plan.shards[index], market, settings, yahoo_url=yahoo_url, on_ticker=tell)
    if not last_attempt:
        _refuse_failures(reports, index)


def _counting(total: int, report: Report) -> Callable[[str], None]:
    """Reports each finished ticker; called from several threads."""
    done, lock = 0, threading.Lock()
    report(done, total, "tickers")

    def tell(ticker: str) -> None:
        nonlocal done
        with lock:
            done += 1
            report(done, total, "tickers")

    return tell


def _refuse_failures(reports: Sequence[TickerReport], index: int) -> None:
    failed = [report for report in reports if report.status == "failed"]
    if failed:
        name = failed[0].ticker
        error = failed[0].error.removeprefix(f"{name}: ")
        raise YahooError(
            f"{len(failed)} of {len(reports)} tickers of shard {index} have no complete answer, first {name}: {error}"
            " (try the shard again)"
        )


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

"""The workers of an ingest on one machine. A Batch array runs one shard a job instead."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.queues import SimpleQueue
from typing import get_args

from app import contract
from app.clock import Clock, clock_from_text
from app.errors import SettingsError, YahooError
from app.ingest.plan import Plan
from app.ingest.report import Status, TickerReport
from app.ingest.shard import ingest_shard
from app.processes import die_with_parent
from app.progress import Report, Say
from app.settings import IngestSettings
from app.storage import Bucket


class Tally:
    """Tells how far an ingest is: each ticker's end by status, and what there is to say of one that is not complete."""

    def __init__(self, total: int, report: Report, say: Say) -> None:
        self._total, self._report, self._say = total, report, say
        self._statuses: Counter[str] = Counter()
        report(0, total, "tickers")

    def count(self, status: str, sentence: str) -> None:
        """One more ticker has ended; without a sentence there is nothing to say of it."""
        self._statuses[status] += 1
        if sentence:
            self._say(sentence)
        counts = ", ".join(f"{self._statuses[name]} {name}" for name in get_args(Status) if self._statuses[name])
        self._report(self._statuses.total(), self._total, f"tickers: {counts}")


def run_shards(
    plan: Plan,
    market_bucket: str,
    settings: IngestSettings,
    yahoo_url: str | None,
    clock_text: str | None,
    report: Report,
    say: Say,
) -> None:
    """Ingest every shard, the plan's `workers` at a time: one in this process, more each in a process of its own.

    clock_text: see app.clock.clock_from_text.
    """
    tally = Tally(len(plan.tickers), report, say)
    if plan.workers > 1:
        _run_processes(plan, market_bucket, settings, yahoo_url, clock_text, tally)
        return
    market, clock = Bucket(market_bucket), clock_from_text(clock_text)
    for shard in plan.shards:
        ingest_shard(plan, shard, market, settings, yahoo_url=yahoo_url, clock=clock, on_ticker=_counting(tally))


def _run_processes(
    plan: Plan,
    market_bucket: str,
    settings: IngestSettings,
    yahoo_url: str | None,
    clock_text: str | None,
    tally: Tally,
) -> None:
    context = multiprocessing.get_context("spawn")
    finished: SimpleQueue[tuple[str, str] | None] = context.SimpleQueue()
    watcher = threading.Thread(target=_watch, args=(finished, tally), daemon=True)
    watcher.start()
    with ProcessPoolExecutor(plan.workers, context, initializer=_start_worker, initargs=(finished,)) as pool:
        jobs = [
            pool.submit(_work, plan, index, market_bucket, settings, yahoo_url, clock_text)
            for index in range(len(plan.shards))
        ]
        try:
            for job in jobs:
                job.result()
            finished.put(None)  # not after a worker was killed: it may have taken the queue's lock with it
            watcher.join()
        except BrokenProcessPool as exc:
            raise YahooError("an ingest worker was killed: start the phase again, what is stored is kept") from exc
        except BaseException:
            for worker in multiprocessing.active_children():  # the pool itself would wait for their shards
                worker.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


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
    clock: Clock,
    report: Report,
    say: Say,
    *,
    last_attempt: bool = True,
) -> None:
    """Ingest one shard of a plan in this process; SettingsError when the plan has no such shard.

    A ticker without a complete answer is a YahooError, its shard's bars and manifest stored, so that the shard is
    tried again. Not at the last attempt: whether what it left is enough is judged from the coverage of all shards.
    """
    if not 0 <= index < len(plan.shards):
        raise SettingsError(f"the plan of run {plan.run_id} has shards 0 to {len(plan.shards) - 1}, not {index}")
    shard = plan.shards[index]
    tell = _counting(Tally(len(shard.tickers), report, say))
    reports = ingest_shard(
        *(plan, shard, market, settings),
        yahoo_url=yahoo_url,
        clock=clock,
        on_ticker=tell,
    )
    if not last_attempt:
        _refuse_failures(reports, index)


def _counting(tally: Tally) -> Callable[[TickerReport], None]:
    return lambda report: tally.count(report.status, _sentence(report))


def _sentence(report: TickerReport) -> str:
    return "" if report.status == "complete" else report.sentence()


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

_finished: SimpleQueue[tuple[str, str] | None] | None = None


def _start_worker(finished: SimpleQueue[tuple[str, str] | None]) -> None:
    global _finished  # noqa: PLW0603  the pool's initializer can hand nothing else to its jobs
    _finished = finished
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a traceback


def _work(
    plan: Plan,
    index: int,
    market_bucket: str,
    settings: IngestSettings,
    yahoo_url: str | None,
    clock_text: str | None,
) -> None:
    def tell(report: TickerReport) -> None:
        if _finished is not None:
            _finished.put((report.status, _sentence(report)))

    ingest_shard(
        *(plan, plan.shards[index], Bucket(market_bucket), settings),
        yahoo_url=yahoo_url,
        clock=clock_from_text(clock_text),
        on_ticker=tell,
    )


def _watch(finished: SimpleQueue[tuple[str, str] | None], tally: Tally) -> None:
    while (ended := finished.get()) is not None:
        with suppress(OSError):  # nobody reads what is said, but the workers must be heard out
            tally.count(*ended)

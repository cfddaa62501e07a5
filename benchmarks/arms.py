"""The arms of the benchmark: `python -m benchmarks.arms JOB RUN` reads a job, carries it out and writes what it cost.

Nothing but the standard library is imported before an arm begins: what it needs, it imports itself, and that is timed.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchmarks.job import Job, Outcome, Run, digest

if TYPE_CHECKING:
    from app.ingest.plan import Plan
    from app.ingest.ticker_bars import TickerBars
    from app.settings import IngestSettings


class Watch:
    """Times the two parts of an arm: what it imports, and its work."""

    def __init__(self) -> None:
        self.import_s = self.begun_s = self.ended_s = self.cpu_s = self.peak_rss_mib = 0.0

    @contextmanager
    def importing(self) -> Iterator[None]:
        """Around imports and nothing else."""
        begun_s = time.monotonic()
        yield
        self.import_s = time.monotonic() - begun_s

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around the work, children's ends included."""
        before_s = _cpu_s()
        self.begun_s = time.monotonic()
        yield
        self.ended_s = time.monotonic()
        self.cpu_s = _cpu_s() - before_s
        self.peak_rss_mib = peak_rss_mib()


def main(arguments: list[str]) -> int:
    """Run the arm that the job names."""
    job_path, run_path = arguments
    job = Job.from_json(Path(job_path).read_text(encoding="utf-8"))
    watch = Watch()
    outcome = ARMS[job.arm](job, watch)
    run = Run(outcome, watch.import_s, watch.begun_s, watch.ended_s, watch.cpu_s, watch.peak_rss_mib)
    Path(run_path).write_text(run.to_json(), encoding="utf-8")
    return 0


def naive(job: Job, watch: Watch) -> Outcome:
    """The original's first way: one ticker after another."""
    with watch.importing():
        from benchmarks.original import ingest_naively
    with _cold_yfinance(), watch.working():
        download_s, sequences, frames = ingest_naively(job.url, job.tickers, job.requests)
    columns = {
        ticker: [
            frame.index.as_unit("s").asi8,
            *(frame[name].to_numpy("float64") for name in ("Open", "High", "Low", "Close")),
            frame["Volume"].to_numpy("int64"),
        ]
        for ticker, frame in frames.items()
    }
    return _outcome(columns, parts_s={"download": download_s}, counts={"sequences": sequences})


def original(job: Job, watch: Watch) -> Outcome:
    """The original's last way: a pool of as many processes as there are cores, each with yfinance's threads."""
    with watch.importing():
        from benchmarks.original import ingest_in_pool
    processes = len(os.sched_getaffinity(0))
    with _cold_yfinance() as cache, watch.working():
        parts = ingest_in_pool(job.url, job.tickers, job.requests, processes, cache)
    rows = {ticker: count for part in parts for ticker, count in part.rows.items()}
    return Outcome(
        rows=sum(rows.values()),
        lost=tuple(sorted(ticker for ticker, count in rows.items() if not count)),
        parts_s={"download": max(part.downloaded_s for part in parts) - watch.begun_s},
        counts={"processes": len(parts), "sequences": sum(part.sequences for part in parts)},
    )


def ours(job: Job, watch: Watch) -> Outcome:
    """One worker: bars fetched, checked and held in memory."""
    with watch.importing():
        from app.clock import clock_from_text
        from app.ingest.collect import collect_shard

        _import_what_comes_later()
        plan, settings = _planned(job)
    with watch.working():
        collected = collect_shard(plan, plan.shards[0], settings, yahoo_url=job.url, clock=clock_from_text(job.now))
    counts = _counts([one.report for one in collected.values()])
    return _outcome(_columns({ticker: one.bars for ticker, one in collected.items()}), counts=counts)


def ours_stored(job: Job, watch: Watch) -> Outcome:
    """The same, and the bars in S3."""
    with watch.importing():
        from app.clock import clock_from_text
        from app.ingest.shard import ingest_shard
        from app.storage import Bucket

        _import_what_comes_later()
        plan, settings = _planned(job)
    with watch.working():
        reports = ingest_shard(
            plan, plan.shards[0], Bucket(job.bucket), settings, yahoo_url=job.url, clock=clock_from_text(job.now)
        )
    return _outcome(_stored(job, plan), counts=_counts(reports), asked=job.tickers)


def _import_what_comes_later() -> None:
    """A worker imports yfinance beside its first requests; here it counts as the import that it is."""
    from app.ingest.credentials import prepare_yfinance

    prepare_yfinance()
    import yfinance.data  # noqa: F401


def workers(job: Job, watch: Watch) -> Outcome:
    """As many worker processes as there are shards, and the bars in S3."""
    with watch.importing():
        from app.ingest.run import run_shards
        from app.progress import silent

        plan, settings = _planned(job)
    with watch.working():
        run_shards(plan, job.bucket, settings, job.url, job.now, silent, lambda line: None)
    return _outcome(_stored(job, plan), asked=job.tickers)


def parsing(job: Job, watch: Watch) -> Outcome:
    """What one answer costs to parse and to check: the median over the plan's answers, CPU alone."""
    with watch.importing():
        from benchmarks.parsing import parse_ms

        plan, settings = _planned(job)
    with watch.working():
        costs_ms = parse_ms(job.url, plan, settings, job.now)
    return Outcome(counts={"parse_ms": costs_ms})


ARMS: Mapping[str, Callable[[Job, Watch], Outcome]] = {
    "naive": naive,
    "original": original,
    "ours": ours,
    "ours_stored": ours_stored,
    "workers": workers,
    "parsing": parsing,
}


def _planned(job: Job) -> tuple[Plan, IngestSettings]:
    from datetime import date

    from app.ingest.plan import make_plan
    from app.sessions import Session
    from app.settings import IngestSettings

    settings = IngestSettings(**job.ingest)
    sessions = [Session(date.fromisoformat(day), open_ts, minutes) for day, open_ts, minutes in job.sessions]
    plan = make_plan("bench", job.tickers, sessions, shards=settings.shards, request_days=settings.request_days)
    return plan, settings


def _stored(job: Job, plan: Plan) -> dict[str, list[Any]]:
    """What S3 holds of the plan, by ticker, as `_outcome` takes it."""
    from app.ingest.bars import bars_of, read_bars
    from app.storage import Bucket

    return _columns(bars_of(read_bars(Bucket(job.bucket), plan.sessions, plan.tickers)))


def _columns(bars: Mapping[str, TickerBars]) -> dict[str, list[Any]]:
    return {ticker: [b.ts, b.open, b.high, b.low, b.close, b.volume] for ticker, b in bars.items()}


def _outcome(
    columns: Mapping[str, list[Any]],
    *,
    parts_s: Mapping[str, float] = MappingProxyType({}),
    counts: Mapping[str, float] = MappingProxyType({}),
    asked: tuple[str, ...] = (),
) -> Outcome:
    """columns: by ticker its columns, in the order of `digest`, as NumPy arrays; asked: tickers that must be there."""
    held = {ticker: own for ticker, own in columns.items() if len(own[0])}
    return Outcome(
        rows=sum(len(own[0]) for own in held.values()),
        digests={ticker: digest(column.tobytes() for column in own) for ticker, own in held.items()},
        lost=tuple(sorted({*columns, *asked} - held.keys())),
        parts_s=dict(parts_s),
        counts=dict(counts),
    )


def _counts(reports: list[Any]) -> dict[str, float]:
    names = ("requests", "retries", "rate_limited", "verified")
    return {name: sum(getattr(report.fetch, name) for report in reports) for name in names}


@contextmanager
def _cold_yfinance() -> Iterator[Path]:
    """yfinance as a fresh machine has it, without a cookie or a time zone that it knows; yields its folder."""
    import yfinance

    warnings.filterwarnings("ignore", category=DeprecationWarning, module="yfinance")
    with tempfile.TemporaryDirectory(prefix="stockflow-bench-", ignore_cleanup_errors=True) as cache:
        yfinance.set_tz_cache_location(cache)
        yield Path(cache)


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak_rss_mib() -> float:
    """Peak resident memory of this process; not getrusage's, which remembers the process that it was forked from."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kib) / 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

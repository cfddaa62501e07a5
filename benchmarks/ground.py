"""The ground on which all arms run: one market, and a fresh interpreter for each run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from app import contract
from app.errors import StockflowError
from app.ingest.plan import Span, cut_spans
from app.processes import last_error
from app.sessions import Session, market_day, sessions_between, utc
from benchmarks.figures import Measured
from benchmarks.job import Job, Run
from benchmarks.options import Options
from benchmarks.parsing import chart_path
from benchmarks.servers import Yahoo, create_bucket, running_yahoo

_LAST_DAY = "2025-10-31"
"""22 sessions that end here lie within Yahoo's 30 days, and there is no holiday among them."""
_REQUEST_DAYS = 7
_SESSION_KIB = 40
"""Of one session's chart, generously."""


class WrongResult(StockflowError):
    """An arm ended with an error, lost tickers, or got other bars than the rest."""

    exit_code = 12


@dataclass(frozen=True)
class Ground:
    """What all jobs share: the market's tickers and sessions, and the environment of the arms."""

    tickers: tuple[str, ...]
    sessions: tuple[Session, ...]
    environ: Mapping[str, str]

    @property
    def spans(self) -> tuple[Span, ...]:
        """The requests that one ticker takes."""
        return cut_spans(self.sessions, _REQUEST_DAYS)

    @property
    def requests(self) -> int:
        """The requests that all tickers take."""
        return len(self.tickers) * len(self.spans)

    def job(
        self,
        arm: str,
        yahoo: Yahoo,
        ingest: Mapping[str, Any] = MappingProxyType({}),
        *,
        few: int | None = None,
        bucket: str = "",
    ) -> Job:
        """A job over the first `few` tickers, all without it; `ingest` are settings of that group."""
        return Job(
            arm=arm,
            url=yahoo.url,
            now=yahoo.now,
            tickers=self.tickers[:few],
            sessions=tuple((session.day.isoformat(), session.open_ts, session.minutes) for session in self.sessions),
            requests=tuple((first.isoformat(), end.isoformat()) for first, end in map(_days, self.spans)),
            ingest={"rate_per_s": 0.0, "request_days": _REQUEST_DAYS} | dict(ingest),
            bucket=bucket,
        )

    def measure(self, job: Job, yahoo: Yahoo) -> Measured:
        """Run a job in a fresh interpreter, its bucket made before; WrongResult when it ends with an error."""
        if job.bucket:
            create_bucket(self.environ[contract.ENV_AWS_ENDPOINT_URL], job.bucket)
        yahoo.reset()
        before_s = yahoo.cpu_s()
        with tempfile.TemporaryDirectory(prefix="stockflow-bench-") as folder:
            job_path, run_path = Path(folder, "job.json"), Path(folder, "run.json")
            job_path.write_text(job.to_json(), encoding="utf-8")
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.arms", str(job_path), str(run_path)],
                env=dict(self.environ),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
            if done.returncode:
                raise WrongResult(f"the arm {job.arm} failed: {last_error(done.stderr.splitlines())}")
            run = Run.from_json(run_path.read_text(encoding="utf-8"))
        return Measured(run, yahoo.reset(), yahoo.cpu_s() - before_s)

    def warm(self, yahoo: Yahoo) -> Measured:
        """Have every chart rendered that an arm will ask for, and run our own arm once; returns that run."""
        charts = [chart_path(ticker, span.start_ts, span.end_ts) for ticker in self.tickers for span in self.spans]
        by_day = [
            chart_path(ticker, _midnight_ts(first), _midnight_ts(end))
            for ticker in self.tickers
            for first, end in map(_days, self.spans)
        ]
        zones = [f"/v8/finance/chart/{ticker}?range=1d&interval=1d" for ticker in self.tickers]
        yahoo.warm([*charts, *by_day, *zones])
        return self.measure(self.job("ours", yahoo), yahoo)


@contextmanager
def market(options: Options, environ: Mapping[str, str], **flags: object) -> Iterator[Yahoo]:
    """An embedded Yahoo over the market that the options ask for; `flags` are further ones of its own."""
    sim = [f"tickers={options.tickers}", f"sessions={options.days}", f"last_day={_LAST_DAY}"]
    # Charts as we ask for them and as yfinance does, which counts in whole days.
    kept_mib = 64 + 2 * options.tickers * options.days * _SESSION_KIB // 1024
    named = {f"--{name.replace('_', '-')}": value for name, value in flags.items()}
    with running_yahoo(
        {"--sim": sim, "--latency-ms": options.latency_ms, "--kept-mib": kept_mib, **named}, environ
    ) as yahoo:
        yield yahoo


def read_ground(yahoo: Yahoo, environ: Mapping[str, str]) -> Ground:
    """The ground over a running Yahoo's market."""
    first, last = (date.fromisoformat(yahoo.service.ready["days"][index]) for index in (0, -1))
    return Ground(tuple(yahoo.service.ready["tickers"]), sessions_between(first, last), environ)


def _days(span: Span) -> tuple[date, date]:
    """A span's first day and the day after its last, as yfinance wants them."""
    return market_day(utc(span.start_ts)), market_day(utc(span.end_ts)) + timedelta(days=1)


def _midnight_ts(day: date) -> int:
    return int(datetime.combine(day, time(), ZoneInfo(contract.EXCHANGE_TIMEZONE)).timestamp())

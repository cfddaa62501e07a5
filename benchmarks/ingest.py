"""Phase I against the clock: `python -m benchmarks.ingest`, or `make bench-ingest` (docs/benchmarks.md).

All arms talk to one embedded Yahoo and run one after another, round by round, each in an interpreter of its own. What
came of it is printed and lies in build/bench/. Exit code 0 unless a result is wrong: a bar that is missed is printed.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from app import contract
from app.errors import StockflowError
from benchmarks.figures import (
    Measured,
    arm_figures,
    fault_figures,
    rate_figures,
    scaling_figures,
)
from benchmarks.ground import Ground, WrongResult, market, read_ground
from benchmarks.job import Job
from benchmarks.machine import describe_machine
from benchmarks.options import Options, read_options
from benchmarks.plots import draw_arms, draw_scaling
from benchmarks.servers import Yahoo, running_s3
from benchmarks.table import report_lines
from benchmarks.verdict import goals, wrong_results
from embedded.services import clean_environ

_RATE_S = 40.0
"""How long a rate is tried ..."""
_RATE_SESSIONS = 20
"""... with requests of one of so many sessions."""
_FEW = 100
"""Tickers with whose cost that of more is compared."""
_SCALING_S = 10.0
"""What the scaling's work takes one worker, about: requests in flight follow from it, 8 at most."""
_FAULT_SEED = 11
_FAULTY_REQUESTS = 500
"""As many as a server that fails is asked: an answer that never comes takes its time."""


@dataclass
class Results:
    """What has been measured. warm: our own arm's first run, not timed, whose bars all others are held against."""

    ground: Ground
    warm: Measured
    rounds: defaultdict[str, list[Measured]] = field(default_factory=lambda: defaultdict(list))
    by_workers: defaultdict[int, list[Measured]] = field(default_factory=lambda: defaultdict(list))
    rated: dict[str, Measured] = field(default_factory=dict)
    faulty: Measured | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, store, print; returns the exit code."""
    try:
        options = read_options(arguments)
        results = measure(options)
        figures = make_figures(options, results)
        _store(figures, options)
    except StockflowError as exc:
        print(f"benchmark: {exc}", file=sys.stderr)
        return exc.exit_code
    print()
    for line in report_lines(figures, goals(figures), figures["wrong"]):
        print(line)
    return WrongResult.exit_code if figures["wrong"] else 0


def measure(options: Options) -> Results:
    """Run everything that the options ask for."""
    environ = clean_environ(os.environ)
    with ExitStack() as servers:
        yahoo = servers.enter_context(market(options, environ))
        if options.workers or "ours_stored" in options.arms:
            environ[contract.ENV_AWS_ENDPOINT_URL] = servers.enter_context(running_s3(environ))
        ground = read_ground(yahoo, environ)
        results = Results(ground, ground.warm(yahoo))
        for turn in range(1, options.rounds + 1):
            for name, job in _arms(ground, yahoo, options, f"bench-{turn}"):
                results.rounds[name].append(_said(f"round {turn} {name}", ground.measure(job, yahoo)))
            for count in options.workers:
                job = _workers(ground, yahoo, options, count, f"bench-{turn}-{count}")
                results.by_workers[count].append(_said(f"round {turn} {count} workers", ground.measure(job, yahoo)))
    if options.rate_per_s:
        tickers = math.ceil(_RATE_S * options.rate_per_s / _RATE_SESSIONS)
        with market(replace(options, tickers=tickers, days=_RATE_SESSIONS), environ, rate=options.rate_per_s) as yahoo:
            counted = read_ground(yahoo, environ)
            for name, rate_per_s in {"told its rate": options.rate_per_s, "not told": 0.0}.items():
                by_day = {"in_flight": options.in_flight, "request_days": 1, "rate_per_s": rate_per_s}
                job = counted.job("ours", yahoo, by_day)
                results.rated[name] = _said(f"a server that counts, {name}", counted.measure(job, yahoo))
    if options.fault_share:
        with market(options, environ, fault_share=options.fault_share, fault_seed=_FAULT_SEED) as yahoo:
            job = ground.job(
                "ours", yahoo, {"in_flight": options.in_flight, "request_days": 1}, few=_few(ground, _FAULTY_REQUESTS)
            )
            results.faulty = _said("a server that fails", ground.measure(job, yahoo))
    return results


def make_figures(options: Options, results: Results) -> dict[str, Any]:
    """All figures, as stored."""
    ground, rounds, plain = results.ground, results.rounds, results.warm.run.outcome
    days = len(ground.sessions)
    figures: dict[str, Any] = {
        "settings": options.to_json(),
        "machine": describe_machine(),
        **arm_figures(rounds, options, ground.requests),
        "scaling": None,
        "rate": None,
        "faults": None,
    }
    if options.workers:
        figures["scaling"] = {
            "requests": ground.requests,
            "in_flight": _scaling_in_flight(ground, options),
            "workers": scaling_figures(results.by_workers, options.latency_ms),
        }
    if options.rate_per_s:
        figures["rate"] = {
            "rate_per_s": options.rate_per_s,
            "requests": math.ceil(_RATE_S * options.rate_per_s / _RATE_SESSIONS) * _RATE_SESSIONS,
            "arms": {name: rate_figures(one, options.rate_per_s) for name, one in results.rated.items()},
        }
    if results.faulty is not None:
        asked = _few(ground, _FAULTY_REQUESTS) * days
        figures["faults"] = fault_figures(results.faulty, options.fault_share, asked, plain)
    named = [(name, one) for name, runs in rounds.items() for one in runs]
    named += [(f"{count} workers", one) for count, runs in results.by_workers.items() for one in runs]
    if results.faulty is not None:
        named.append(("the fault arm", results.faulty))
    figures["wrong"] = [
        *wrong_results(plain, named, figures["faults"]),
        *(f"the rate arm ({name}) lost tickers" for name, one in results.rated.items() if one.run.outcome.lost),
    ]
    return figures


def _arms(ground: Ground, yahoo: Yahoo, options: Options, bucket: str) -> Iterator[tuple[str, Job]]:
    """The arms of one round, in order; bucket: for those that store."""
    ours = {"in_flight": options.in_flight}
    jobs = {
        "naive": ground.job("naive", yahoo),
        "original": ground.job("original", yahoo),
        "ours": ground.job("ours", yahoo, ours),
        "ours_stored": ground.job("ours_stored", yahoo, ours, bucket=bucket),
        "yfinance_client": ground.job("ours", yahoo, {**ours, "client": "yfinance"}),
    }
    yield from ((arm, job) for arm, job in jobs.items() if arm in options.arms)
    if len(ground.tickers) > _FEW and "ours" in options.arms:
        yield "ours_100", ground.job("ours", yahoo, ours, few=_FEW)
    yield "parsing", ground.job("parsing", yahoo)


def _workers(ground: Ground, yahoo: Yahoo, options: Options, count: int, bucket: str) -> Job:
    settings = {"shards": count, "processes": count, "in_flight": _scaling_in_flight(ground, options)}
    return ground.job("workers", yahoo, settings, bucket=bucket)


def _scaling_in_flight(ground: Ground, options: Options) -> int:
    return max(1, min(8, round(ground.requests * options.latency_ms / 1000 / _SCALING_S)))


def _few(ground: Ground, requests: float) -> int:
    """The tickers that take about so many requests of one session each, at most all."""
    return min(len(ground.tickers), max(1, math.ceil(requests / len(ground.sessions))))


def _said(what: str, one: Measured) -> Measured:
    print(f"{what}: {one.run.wall_s:.3f} s", flush=True)
    return one


def _store(figures: Mapping[str, Any], options: Options) -> None:
    options.folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**figures, "goals": [goal.to_json() for goal in goals(figures)]}, indent=2)
    files = [options.folder / "ingest.json"]
    files[0].write_text(text + "\n", encoding="utf-8")
    files += draw_arms(figures, options.folder)
    if figures["scaling"] is not None:
        files += draw_scaling(figures, options.folder)
    print(f"written: {', '.join(str(file) for file in files)}")


if __name__ == "__main__":
    sys.exit(main())

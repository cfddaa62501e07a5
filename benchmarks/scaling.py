"""How far the ingest scales: `python -m benchmarks.scaling`, the figures of docs/scaling.md.

Three things are run for real on this machine, against the embedded Yahoo and the embedded S3: one shard of the array
from its first request to its manifest, the merge of one day of all shards, and the join of all manifests. What all
shards together do to a server is simulated with the worker's own pacing in virtual time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app import contract
from app.clock import clock_from_text
from app.errors import StockflowError
from app.ingest.answers import DayAnswer
from app.ingest.bars import to_table
from app.ingest.compact import compact_day
from app.ingest.counts import FetchCount
from app.ingest.coverage import join_manifests
from app.ingest.pacing import Pacer
from app.ingest.parts import put_part
from app.ingest.plan import Plan, make_plan
from app.ingest.report import make_report
from app.ingest.shard import ingest_shard
from app.ingest.ticker_bars import TickerBars
from app.sessions import Session, closed_sessions, last_sessions
from app.settings import IngestSettings
from app.storage import Bucket, to_json
from benchmarks.servers import create_bucket, running_s3, running_yahoo
from benchmarks.virtual_time import run_in_virtual_time
from embedded.services import clean_environ
from embedded.yahoo.faults import TokenBucket

_LAST_DAY = date(2025, 12, 5)
_BUCKET = "scaling"
_MIB = 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the JSON; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description="Measure how ingest scales.")
    parser.add_argument("--tickers", type=int, default=10_000, help="of the universe")
    parser.add_argument("--shards", type=int, default=100, help="of the array")
    parser.add_argument("--days", type=int, default=21, help="sessions")
    parser.add_argument("--latency-ms", type=float, default=150.0, help="time before each answer")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where the results go")
    asked = parser.parse_args(arguments)
    try:
        found = measure(asked.tickers, asked.shards, asked.days, asked.latency_ms)
    except StockflowError as exc:
        print(f"benchmark: {exc}", file=sys.stderr)
        return exc.exit_code
    asked.folder.mkdir(parents=True, exist_ok=True)
    path = asked.folder / "scaling.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    print(f"-> {path}")
    return 0


def measure(tickers: int, shards: int, days: int, latency_ms: float) -> dict[str, Any]:
    """All figures, by what they are of."""
    environ = clean_environ(os.environ)
    per_shard = math.ceil(tickers / shards)
    sessions = last_sessions(days, _LAST_DAY)
    universe = [f"T{number:05d}" for number in range(tickers)]
    plan = make_plan("scaling", universe, sessions, shards=shards, request_days=7)
    with running_s3(environ) as s3_url:
        os.environ |= {name: value for name, value in environ.items() if name.startswith("AWS_")}
        os.environ[contract.ENV_AWS_ENDPOINT_URL] = s3_url
        create_bucket(s3_url, _BUCKET)
        flags = {"--sim": [f"tickers={per_shard}", f"sessions={days}", f"last_day={_LAST_DAY}"]}
        with running_yahoo({**flags, "--latency-ms": latency_ms}, environ) as yahoo:
            paths = [
                f"/v8/finance/chart/SIM{number + 1:03d}?interval=1m&period1={span.start_ts}&period2={span.end_ts}"
                for number in range(per_shard)
                for span in plan.spans
            ]
            yahoo.warm(paths)
            shard = _in_a_process(_one_shard, yahoo.url, yahoo.now, per_shard, days)
        market = Bucket(_BUCKET)
        for part in range(shards):
            _put_part(market, plan, part)
        merge = _in_a_process(_merge_day, sessions[-1])
        for part in range(shards):
            _put_manifest(market, plan, part)
        join = _in_a_process(_join, plan)
        join["coverage_mb"] = len(market.get(contract.coverage_key(plan.run_id))) / 1e6
        join["plan_mb"] = len(to_json(plan.to_json())) / 1e6
    requests = tickers * len(plan.spans)
    return {
        "universe": {"tickers": tickers, "shards": shards, "sessions": days, "requests": requests},
        "one_shard": shard | {"tickers": per_shard, "requests": per_shard * len(plan.spans)},
        "merge_of_a_day": merge,
        "join_of_manifests": join,
        "fleet": [
            simulate_fleet(shards, per_shard * len(plan.spans), limit, budget, latency_ms / 1000)
            for limit, budget in ((0.0, 50.0), (0.0, 500.0), (200.0, 0.0), (200.0, 190.0), (20.0, 50.0))
        ],
        "objects": {"before_merge": 2 * shards * days, "after_merge": 2 * days, "manifests": shards},
    }


def simulate_fleet(
    shards: int, requests: int, limit_per_s: float, budget_per_s: float, latency_s: float
) -> dict[str, Any]:
    """All shards at once, each with so many requests, against one server.

    limit_per_s: what the server lets through, by a token bucket of one second; 0 is everything. budget_per_s: of all
    workers together, 0 is none. The parsing costs nothing here.
    """

    async def fleet() -> tuple[float, int]:
        loop = asyncio.get_running_loop()
        server = TokenBucket(limit_per_s, loop.time)
        refused = 0

        async def worker() -> None:
            pacer = Pacer(budget_per_s / shards, clock_s=loop.time)
            left = requests

            async def slot() -> None:
                nonlocal left, refused
                while left:
                    left -= 1
                    while True:
                        turn = await pacer.turn()
                        await asyncio.sleep(latency_s)
                        wait_s = server.wait_s()
                        if not wait_s:
                            pacer.answered()
                            break
                        refused += 1
                        pacer.refused(turn, max(1, math.ceil(wait_s)))

            await asyncio.gather(*(slot() for _ in range(IngestSettings().in_flight)))

        await asyncio.gather(*(worker() for _ in range(shards)))
        return loop.time(), refused

    seconds, refused = run_in_virtual_time(fleet())
    rate = shards * requests / seconds
    return {
        "server_limit_per_s": limit_per_s,
        "budget_per_s": budget_per_s,
        "seconds": round(seconds, 1),
        "requests_per_s": round(rate, 1),
        "refused": refused,
        "share_of_the_lower": round(rate / min(limit_per_s or math.inf, budget_per_s or math.inf), 3),
    }


def _in_a_process(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What the work returns, with its wall and CPU seconds and the peak of its process's memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed, (work, arguments))


def _timed(work: Callable[..., dict[str, Any]], arguments: Sequence[Any]) -> dict[str, Any]:
    begun_s, cpu_s = time.monotonic(), time.process_time()
    found = work(*arguments)
    return {
        **found,
        "wall_s": round(time.monotonic() - begun_s, 2),
        "cpu_s": round(time.process_time() - cpu_s, 2),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _MIB,
    }


def _one_shard(url: str, now: str, tickers: int, days: int) -> dict[str, Any]:
    clock = clock_from_text(now)
    sessions = closed_sessions(clock(), 60)[-days:]
    plan = make_plan("shard", [f"SIM{n + 1:03d}" for n in range(tickers)], sessions, shards=1, request_days=7)
    market = Bucket(_BUCKET)
    reports = ingest_shard(plan, plan.shards[0], market, IngestSettings(rate_per_s=0), yahoo_url=url, clock=clock)
    keys = [*market.objects(contract.BARS_PREFIX), *market.objects(contract.ANSWERS_PREFIX)]
    manifest = market.get(contract.manifest_key("shard", plan.shards[0].name))
    for info in keys:
        market.delete(info.key)
    return {
        "rows": sum(report.rows for report in reports),
        "failed": sum(report.status == "failed" for report in reports),
        "objects": len(keys),
        "stored_mb": round(sum(info.size_bytes for info in keys) / 1e6, 2),
        "manifest_kb": round(len(manifest) / 1e3, 1),
    }


def _put_part(market: Bucket, plan: Plan, number: int) -> None:
    shard, session = plan.shards[number], plan.sessions[-1]
    rng = np.random.default_rng(number)
    ts = session.open_ts + np.arange(session.minutes) * contract.BAR_S
    bars = {}
    for ticker in shard.tickers:
        close = 100 * np.exp(np.cumsum(rng.normal(0, 5e-4, session.minutes)))
        prices = (close, close * 1.001, close * 0.999, close)
        bars[ticker] = TickerBars(ts, *prices, rng.integers(1, 10_000, session.minutes))
    whole = DayAnswer(session.close_ts + 3600, sure=True, missing="")
    answers = dict.fromkeys(shard.tickers, whole)
    put_part(market, session, to_table(bars), answers, partial(contract.shard_part, plan.run_id, shard.name))


def _merge_day(session: Session) -> dict[str, Any]:
    market = Bucket(_BUCKET)
    gone = compact_day(market, session)
    (merged,) = market.objects(contract.bars_day_prefix(session.day))
    return {"parts": gone, "object_mb": round(merged.size_bytes / 1e6, 1)}


def _put_manifest(market: Bucket, plan: Plan, number: int) -> None:
    """As after a run in which every twentieth ticker is thin on every day."""
    shard = plan.shards[number]
    lines = []
    for index, ticker in enumerate(shard.tickers):
        missing = ",".join(str(minute) for minute in range(0, 390, 3)) if index % 20 == 0 else ""
        answers = {s.day: DayAnswer(s.close_ts + 3600, sure=True, missing=missing) for s in plan.sessions}
        report = make_report(ticker, plan.sessions, plan.closed_days, answers, {}, 0.9, FetchCount(requests=5))
        lines.append(report.to_json())
    market.put_json(contract.manifest_key(plan.run_id, shard.name), {"shard": shard.name, "tickers": lines})


def _join(plan: Plan) -> dict[str, Any]:
    coverage = join_manifests(plan, Bucket(_BUCKET))
    return {"statuses": coverage["statuses"]}


if __name__ == "__main__":
    sys.exit(main())

"""A small run as the phases leave it, written with their own writers, whose every number can be worked out again."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from app import contract
from app.clock import fixed_clock
from app.ingest.coverage import ingest_result, write_coverage
from app.ingest.plan import Plan, write_plan
from app.ingest.report import TickerReport
from app.serving.health import StreamHealth
from app.serving.sink import BatchSummary
from app.serving.ticks import TickCounts
from app.settings import Settings
from app.storage import Bucket
from app.tables import arrow_schema, put_table
from app.training.evaluate import evaluate
from app.training.gate import decide, promote
from app.training.publish import publish_model
from app.workflow.results import write_result
from tests.fakes import make_bars, make_sessions
from tests.models import plain_spec

RUN = "planted-1"
TICKERS = ("AAA", "BBB", "CCC", "DDD")
"""DDD lacks some minutes and is never predicted."""
PREDICTED = TICKERS[:3]
HORIZONS = (1, 5)
MINUTES = 40
"""Minutes of the session that are predicted at first."""
SESSIONS = make_sessions(390, 390)
DAY = SESSIONS[-1]
MODEL, OLDER = f"{RUN}-aaaaaaaa", "earlier-bbbbbbbb"
NOW = datetime(2026, 3, 24, 20, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Buckets:
    """The three buckets of a deployment."""

    market: Bucket
    models: Bucket
    predictions: Bucket


def price(ticker: str, minute: int) -> float:
    """The close of a minute of the session, USD."""
    steps = np.random.default_rng([*ticker.encode()]).normal(0, 0.001, 390)
    return round(100 * math.exp(float(steps[: minute + 1].sum())), 4)


def predicted_return(ticker: str, minute: int, horizon: int) -> float:
    """What is predicted as of a minute: half of what comes, and a bit that does not."""
    comes = math.log(price(ticker, minute + horizon) / price(ticker, minute))
    return comes / 2 + 0.0001 * ((minute % 3) - 1)


def predictions(minutes: Iterable[int], run_minute: datetime = NOW) -> pa.Table:
    """The predictions of all tickers as of some minutes; the band is 10 USD cents to each side."""
    rows = []
    for minute in minutes:
        for ticker in PREDICTED:
            for horizon in HORIZONS:
                last, move = price(ticker, minute), predicted_return(ticker, minute, horizon)
                target = last * math.exp(move)
                rows.append(
                    {
                        "ticker": ticker,
                        "as_of": as_of(minute),
                        "horizon_min": horizon,
                        "last_price": last,
                        "predicted_return": move,
                        "predicted_price": target,
                        "price_p10": target - 0.1,
                        "price_p50": target,
                        "price_p90": target + 0.1,
                        "carried_minutes": max(0, 59 - minute),
                        "model_id": MODEL,
                        "produced_at": run_minute,
                    }
                )
    return pa.Table.from_pylist(rows, arrow_schema(contract.PREDICTIONS))


def as_of(minute: int) -> datetime:
    """The start of a minute of the session."""
    return datetime.fromtimestamp(DAY.open_ts + contract.BAR_S * minute, UTC)


def write_predictions(buckets: Buckets, minutes: range, run_id: str = RUN) -> None:
    """One object of predictions, named by its first minute."""
    key = contract.predictions_key(DAY.day, run_id, minutes.start)
    put_table(buckets.predictions, key, predictions(minutes))


def write_run(buckets: Buckets, *, trained: bool = True) -> None:
    """All that the phases leave of the run: ingest in two shards, two models, half a session of predictions."""
    plan = write_plan(RUN, TICKERS, buckets.market, SESSIONS, shards=2, request_days=7)
    for shard in plan.shards:
        write_manifest(buckets.market, plan, shard.name)
    coverage = write_coverage(plan, buckets.market, min_coverage=0.5, on_delisted="fail")
    write_result(buckets.market, RUN, "ingest", ingest_result(coverage, buckets.market), 12.5)
    write_result(buckets.market, RUN, "dataset", {"rows": 1234, "where": "s3://m/"}, 3.0)
    if trained:
        write_model(buckets.models, "earlier", OLDER, NOW - timedelta(days=1), weight=0.2)
        write_model(buckets.models, RUN, MODEL, NOW, weight=0.4)
        write_result(buckets.market, RUN, "train", {"rows": 500, "where": "s3://m/"}, 60.0)
    write_predictions(buckets, range(20))
    write_predictions(buckets, range(20, MINUTES))
    for minute in range(MINUTES - 3, MINUTES + 2):
        put_table(buckets.market, tick_key(minute), make_bars("AAA", DAY, [minute]))
    write_health(buckets.market, datetime.now(UTC))


def write_manifest(market: Bucket, plan: Plan, name: str) -> None:
    """A shard's manifest; DDD lacks 100 minutes of the last session."""
    shard = next(shard for shard in plan.shards if shard.name == name)
    days = [session.day.isoformat() for session in plan.sessions]
    reports = []
    for ticker in shard.tickers:
        report = TickerReport(ticker, "complete", rows=780, days=dict.fromkeys(days, "complete"))
        if ticker == "DDD":
            report = replace(report, status="partial", rows=680, missing={days[1]: 100}, gaps={days[1]: "0-99"})
            report.days[days[1]] = "partial"
        reports.append(report.to_json())
    market.put_json(contract.manifest_key(plan.run_id, name), {"shard": name, "tickers": reports})


def write_health(market: Bucket, at: datetime, micro_batch: int = 7) -> None:
    """The health of a stream that runs."""
    health = StreamHealth(market, RUN, fixed_clock(at), MODEL)
    ticks = MINUTES * len(PREDICTED)
    newest = int(as_of(MINUTES - 1).timestamp())
    health.add(BatchSummary(micro_batch, ticks * len(HORIZONS), newest, ticks, TickCounts(late=3, duplicate=1), 0.1))
    health.write_now_and_then()


def write_model(models: Bucket, run_id: str, model_id: str, now: datetime, *, weight: float) -> None:
    """A published model, as the gate decides on it. weight: how much of what comes its forecast knows."""
    metrics = model_metrics(weight)
    if run_id == RUN:
        theirs, ours = model_metrics(0.2)["validation"], metrics["validation"]
        metrics["current"] = {
            **{"model_id": OLDER, "windows": ours["windows"], "horizons_min": list(HORIZONS)},
            **{"skill": theirs["skill"], "candidate_skill": ours["skill"]},
        }
    files = {contract.MODEL_KERAS: b"keras", contract.MODEL_ONNX: b"onnx"}
    days = {"train": ["2025-11-28"], "validation": ["2025-12-01"], "test": ["2025-12-02"]}
    publish_model(
        *(models, run_id, model_id, plain_spec(60, HORIZONS), Settings(), files, metrics, days, now),
    )
    decision = decide(models, run_id, 0.0, now)
    promote(models, run_id, model_id, now, serving=decision.serving)


def model_metrics(weight: float) -> dict[str, Any]:
    """A model's metrics.json, measured on a hundred windows."""
    random = np.random.default_rng(5)
    moves = random.normal(0, 0.001, (100, len(HORIZONS)))
    judged = evaluate(
        np.repeat(weight * moves[:, :, None], 4, axis=2),
        last_price=np.full(100, 50.0),
        future_price=50 * np.exp(moves),
        as_of=np.arange(100) * 60 + DAY.open_ts,
        horizons_min=HORIZONS,
        seed=1,
        linear=0.1 * moves,
    ).to_json()
    history = [{"loss": 2.0 / epoch, "validation_loss": 2.5 / epoch} for epoch in (1, 2, 3)]
    told = {"windows_train": 5000, "ranks": 2, "batch": 256, "best_epoch": 3, "history": history, "current": {}}
    return {"validation": judged, "test": judged, "linear": {"test": judged}, **told}


def tick_key(minute: int) -> str:
    """The poll that brought a minute's bars."""
    return contract.ticks_key(RUN, DAY.day, int(as_of(minute).timestamp() * 1000), minute)

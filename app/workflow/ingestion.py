"""The plan before anything is started, and the judgement on what the ingest fleet left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from app import contract
from app.clock import Clock
from app.errors import AlreadyServed, ServingError, TooFewBars
from app.ingest.coverage import ingest_result, join_manifests, judge
from app.ingest.plan import read_plan, write_plan
from app.metrics import Emit
from app.sessions import Session, closed_sessions
from app.storage import Bucket
from app.workflow.order import Order
from app.workflow.results import write_result
from app.workflow.session_table import SessionTable


def plan_shards(
    order: Order, market: Bucket, models: Bucket, table: SessionTable, fleet: Mapping[str, int]
) -> dict[str, int]:
    """Plan the run and store the plan; returns its size and the instances that its shards need.

    Planned are the sessions that have closed, without ingest those that have stored bars. fleet: `max_instances`,
    `jobs_per_instance`. Raises, with nothing stored, AlreadyServed or ServingError when the run could not be
    served, TooFewBars when nothing is ingested and no bars are stored, UniverseError without a session and
    SettingsError as `table`.
    """
    if order["phases"]["serve"]:
        _check_servable(order, market, models)
    settings = order["settings"]["ingest"]
    sessions = closed_sessions(datetime.fromisoformat(order["now"]), settings["days"], table.between)
    if not order["phases"]["ingest"]:
        sessions = _with_bars(sessions, market)
    plan = write_plan(
        *(order["run_id"], order["universe"], market, sessions),
        shards=settings["shards"],
        request_days=settings["request_days"],
        at_once=fleet["max_instances"] * fleet["jobs_per_instance"],
    )
    return {
        "shards": len(plan.shards),
        "instances": min(fleet["max_instances"], math.ceil(len(plan.shards) / fleet["jobs_per_instance"])),
        "tickers": len(plan.tickers),
        "sessions": len(plan.sessions),
    }


def _check_servable(order: Order, market: Bucket, models: Bucket) -> None:
    """What the stream would find out only after everything before it."""
    if market.exists(contract.result_key(order["run_id"], "serve")):
        raise AlreadyServed(order["run_id"])
    if not order["phases"]["train"] and not models.exists(contract.CURRENT_MODEL_KEY):
        raise ServingError("no model has been promoted: start with the phases ingest, dataset and train")


def _with_bars(sessions: Sequence[Session], market: Bucket) -> tuple[Session, ...]:
    """The sessions of which bars are stored, whoever ingested them."""
    found = tuple(s for s in sessions if any(market.objects(contract.bars_day_prefix(s.day))))
    if sessions and not found:
        raise TooFewBars(f"no bars are stored for {sessions[0].day} to {sessions[-1].day}: start with the phase ingest")
    return found


def check_coverage(order: Order, market: Bucket, emit: Emit, clock: Clock) -> dict[str, Any]:
    """Join the shards' manifests, publish and judge the coverage, store the phase's result; returns a digest.

    The phase's time counts from its plan. Raises as app.ingest.coverage.join_manifests and judge.
    """
    settings = order["settings"]["ingest"]
    plan = read_plan(order["run_id"], market)
    coverage = join_manifests(plan, market)
    emit(
        {
            contract.METRIC_COVERAGE: coverage["coverage"],
            contract.METRIC_REQUESTS: coverage["requests"],
            contract.METRIC_RATE_LIMITED: coverage["rate_limited"],
        }
    )
    judge(coverage, min_coverage=settings["min_coverage"], on_delisted=settings["on_delisted"])
    planned = next(market.objects(contract.plan_key(plan.run_id))).modified
    wall_s = (clock() - planned).total_seconds()
    write_result(market, plan.run_id, "ingest", ingest_result(coverage, market), wall_s)
    digest = {key: coverage[key] for key in ("requested", "statuses", "rows", "coverage")}
    return {**digest, "days": len(coverage["days"])}

"""The ingest phase's two Lambdas: the plan before the fleet, the judgement after it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app import contract
from app.clock import Clock
from app.ingest.coverage import ingest_result, join_manifests, judge
from app.ingest.plan import read_plan, write_plan
from app.metrics import Emit
from app.sessions import recent_sessions
from app.storage import Bucket
from app.workflow.order import Order
from app.workflow.results import write_result
from app.workflow.session_table import SessionTable


def plan_shards(order: Order, market: Bucket, table: SessionTable, fleet: Mapping[str, int]) -> dict[str, int]:
    """Plan the run and store the plan; returns its size and the instances that its shards need.

    fleet: `max_instances`, `jobs_per_instance`. Raises UniverseError without a session, SettingsError as `table`.
    """
    settings = order["settings"]["ingest"]
    sessions = recent_sessions(datetime.fromisoformat(order["now"]), settings["days"], table.between)
    plan = write_plan(
        *(order["run_id"], order["universe"], market, sessions),
        shards=settings["shards"],
        request_days=settings["request_days"],
    )
    return {
        "shards": len(plan.shards),
        "instances": min(fleet["max_instances"], math.ceil(len(plan.shards) / fleet["jobs_per_instance"])),
        "tickers": len(plan.tickers),
        "sessions": len(plan.sessions),
    }


def check_coverage(order: Order, market: Bucket, emit: Emit, clock: Clock) -> dict[str, Any]:
    """Join the shards' manifests, publish and judge the coverage, store the phase's result; returns a digest.

    The phase's time counts from its plan. Raises as app.ingest.coverage.join_manifests and judge.
    """
    settings = order["settings"]["ingest"]
    plan = read_plan(order["run_id"], market)
    coverage = join_manifests(plan, market, settings["complete_share"])
    emit(
        {
            contract.METRIC_COVERAGE: coverage["coverage"],
            contract.METRIC_REQUESTS: coverage["requests"],
            contract.METRIC_RATE_LIMITED: coverage["rate_limited"],
        }
    )
    judge(coverage, min_coverage=settings["min_coverage"], on_unknown=settings["on_unknown"])
    planned = next(market.objects(contract.plan_key(plan.run_id))).modified
    wall_s = (clock() - planned).total_seconds()
    write_result(market, plan.run_id, "ingest", ingest_result(coverage, market), wall_s)
    digest = {key: coverage[key] for key in ("requested", "statuses", "rows", "coverage")}
    return {**digest, "days": len(coverage["days"])}

"""The dataset phase: reads stored bars, writes splits and spec."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from app import contract
from app.dataset.build import build_dataset
from app.errors import ObjectMissing
from app.ingest.bars import bar_starts, read_bars
from app.ingest.plan import Plan, read_plan
from app.progress import Report
from app.sessions import Session
from app.settings import DatasetSettings
from app.storage import Bucket
from app.tables import put_table


def run_dataset(
    run_id: str, market: Bucket, models: Bucket, settings: DatasetSettings, report: Report
) -> dict[str, Any]:
    """Build the dataset of a run from the bars of its plan and store it; returns the phase's result.

    Last it becomes the one that training alone takes. Raises ObjectMissing without a plan, TooFewBars and BadBars.
    """
    sessions, bars = _stored_bars(read_plan(run_id, market), market)
    dataset = build_dataset(bars, sessions, settings, on_ticker=lambda done, total: report(done, total, "tickers"))
    models.delete(contract.dataset_spec_key(run_id))  # an earlier spec must not stand beside these splits
    for name, table in dataset.splits.items():
        put_table(models, contract.dataset_key(run_id, name), table, [group.rows for group in dataset.groups[name]])
    found = dataset.report()
    models.put_json(contract.dataset_spec_key(run_id), found)  # after the splits: it says that the dataset is whole
    models.put_json(contract.LATEST_DATASET_KEY, {"run_id": run_id})
    return {
        "rows": sum(len(table) for table in dataset.splits.values()),
        "where": f"s3://{models.name}/{contract.dataset_spec_key(run_id)}",
        **{key: found[key] for key in ("windows", "days", "volume_faults", "short_sessions", "filled_minutes")},
    }


def _stored_bars(plan: Plan, market: Bucket) -> tuple[list[Session], pa.Table]:
    """The sessions that the run holds, and their bars: by its coverage, or by what is stored if it ingested nothing."""
    try:
        held = set(market.get_json(contract.coverage_key(plan.run_id))["days"])
    except ObjectMissing:
        bars = read_bars(market, plan.sessions, plan.tickers)
        ts = bar_starts(bars)
        return [s for s in plan.sessions if ((ts >= s.open_ts) & (ts < s.close_ts)).any()], bars
    sessions = [session for session in plan.sessions if session.day.isoformat() in held]
    return sessions, read_bars(market, sessions, plan.tickers)

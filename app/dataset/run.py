"""The dataset phase: reads stored bars, writes splits and spec."""

from __future__ import annotations

from typing import Any

from app import contract
from app.dataset.build import build_dataset
from app.ingest.bars import read_bars
from app.ingest.plan import read_plan
from app.progress import Report
from app.settings import DatasetSettings
from app.storage import Bucket
from app.tables import put_table


def run_dataset(
    run_id: str, market: Bucket, models: Bucket, settings: DatasetSettings, report: Report
) -> dict[str, Any]:
    """Build the dataset of a run from the bars of its plan and store it; returns the phase's result."""
    plan = read_plan(run_id, market)
    held = set(market.get_json(contract.coverage_key(run_id))["days"])
    sessions = [session for session in plan.sessions if session.day.isoformat() in held]
    bars = read_bars(market, sessions, plan.tickers)
    dataset = build_dataset(bars, sessions, settings, on_ticker=lambda done, total: report(done, total, "tickers"))
    models.delete(contract.dataset_spec_key(run_id))  # an earlier spec must not stand beside these splits
    for name, table in dataset.splits.items():
        put_table(models, contract.dataset_key(run_id, name), table)
    models.put_json(contract.dataset_spec_key(run_id), dataset.report())  # last: it says that the dataset is whole
    found = dataset.report()
    return {
        "rows": sum(len(table) for table in dataset.splits.values()),
        "where": f"s3://{models.name}/{contract.dataset_spec_key(run_id)}",
        **{key: found[key] for key in ("windows", "days", "volume_faults", "short_sessions", "filled_minutes")},
    }

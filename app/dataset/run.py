"""The dataset phase: reads stored bars, writes splits and spec."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from app import contract
from app.dataset.build import build_dataset
from app.errors import TooFewBars
from app.ingest.run import read_plan
from app.ingest.shard import latest_bars
from app.progress import Report
from app.sessions import Session
from app.settings import DatasetSettings
from app.storage import Bucket, arrow_schema


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
        models.put_table(contract.dataset_key(run_id, name), table)
    models.put_json(contract.dataset_spec_key(run_id), dataset.report())  # last: it says that the dataset is whole
    found = dataset.report()
    return {
        "rows": sum(len(table) for table in dataset.splits.values()),
        "where": f"s3://{models.name}/{contract.dataset_spec_key(run_id)}",
        **{key: found[key] for key in ("windows", "days", "volume_faults", "short_sessions", "filled_minutes")},
    }


def read_bars(market: Bucket, sessions: Iterable[Session], tickers: Sequence[str]) -> pa.Table:
    """Stored bars of these sessions and tickers, one copy of each, ordered by (ticker, ts).

    Where two objects hold the same bar, the one written last wins. Raises TooFewBars when there is none.
    """
    wanted = pa.array(sorted(tickers))
    schema = arrow_schema(contract.BARS)
    found = [info for session in sessions for info in market.objects(contract.bars_day_prefix(session.day))]
    tables = []
    for info in sorted(found, key=lambda info: (info.modified, info.key)):
        table = market.get_table(info.key).select(schema.names).cast(schema)
        tables.append(table.filter(pc.is_in(table["ticker"], value_set=wanted)))
    if not any(len(table) for table in tables):
        raise TooFewBars(f"no bars under s3://{market.name}/{contract.BARS_PREFIX}: run `stockflow ingest` first")
    return latest_bars(tables)

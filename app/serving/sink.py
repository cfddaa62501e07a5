"""Predictions out to S3: one object for each micro-batch and day, and those of each ticker's newest window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from app import contract
from app.clock import Clock
from app.errors import ObjectMissing
from app.sessions import market_day, utc
from app.storage import Bucket
from app.tables import arrow_schema, put_table

Latest = dict[str, list[dict[str, Any]]]
"""By ticker: the rows of its newest window, one for each horizon."""
_ORDER = ("as_of", "ticker", "horizon_min")


class PredictionSink:
    """Writes each micro-batch once: a repeated one overwrites its own objects.

    on_batch: told after each micro-batch that wrote: its predictions, and the start of the newest bar among
    them (epoch s). written: predictions written by this process.
    """

    def __init__(self, bucket: Bucket, run_id: str, clock: Clock, on_batch: Callable[[int, int], None]) -> None:
        self.written = 0
        self._bucket = bucket
        self._run_id = run_id
        self._clock = clock
        self._on_batch = on_batch
        self._latest: Latest = _read_latest(bucket)

    def __call__(self, batch: Any, micro_batch: int) -> None:
        """For `foreachBatch`: the rows of a micro-batch are few, one for each ticker, minute and horizon."""
        table = batch.toArrow()
        if not len(table):
            return
        table = table.sort_by([(name, "ascending") for name in _ORDER])
        as_of = table["as_of"].to_numpy()
        days = np.array([market_day(utc(int(ts))) for ts in as_of])
        stored = to_contract(table, self._clock().timestamp())
        for day in sorted(set(days)):
            key = contract.predictions_key(day, self._run_id, micro_batch)
            put_table(self._bucket, key, stored.filter(pa.array(days == day)))
        self._write_latest(stored)
        self.written += len(stored)
        self._on_batch(len(stored), int(as_of[-1]))

    def _write_latest(self, stored: pa.Table) -> None:
        for row in stored.to_pylist():  # ascending by as_of: the last window of a ticker stays
            text = {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}
            self._latest[row["ticker"]] = _newer(self._latest.get(row["ticker"], []), text)
        self._bucket.put_json(
            contract.LATEST_PREDICTIONS_KEY,
            {
                "schema_version": contract.PREDICTIONS_SCHEMA_VERSION,
                "predictions": [row for ticker in sorted(self._latest) for row in self._latest[ticker]],
            },
        )


def to_contract(table: pa.Table, produced_at_s: float) -> pa.Table:
    """The stream's rows (as_of in epoch seconds) in the schema of contract.PREDICTIONS."""
    schema = arrow_schema(contract.PREDICTIONS)
    as_of = pa.array(table["as_of"].to_numpy() * 1000).cast(schema.field("as_of").type)
    produced = pa.array(np.full(len(table), int(produced_at_s * 1000))).cast(schema.field("produced_at").type)
    table = table.set_column(table.schema.get_field_index("as_of"), "as_of", as_of)
    return table.append_column("produced_at", produced).select(schema.names).cast(schema)


def _newer(held: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """A ticker's newest predictions when another one comes: horizons of one window and one model, ascending."""
    if held and held[0]["as_of"] > row["as_of"]:
        return held
    window = [one for one in held if all(one[name] == row[name] for name in ("as_of", "model_id"))]
    others = [one for one in window if one["horizon_min"] != row["horizon_min"]]
    return sorted([*others, row], key=lambda one: int(one["horizon_min"]))


def _read_latest(bucket: Bucket) -> Latest:
    """What an earlier stream left; nothing when its rows have other columns."""
    try:
        held = bucket.get_json(contract.LATEST_PREDICTIONS_KEY)
    except ObjectMissing:
        return {}
    latest: Latest = {}
    if held["schema_version"] == contract.PREDICTIONS_SCHEMA_VERSION:
        for row in held["predictions"]:
            latest.setdefault(row["ticker"], []).append(row)
    return latest

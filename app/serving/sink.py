"""Predictions out to S3: objects that grow by the micro-batch, and the newest predictions of each ticker."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app import contract
from app.clock import Clock
from app.errors import ObjectChanged, ObjectMissing, ServingError
from app.serving.latest import LatestPredictions
from app.serving.ticks import TickCounts
from app.sessions import market_day, utc
from app.storage import Bucket
from app.tables import arrow_schema, get_table, get_tagged_table, put_table

_ORDER = ("as_of", "ticker", "horizon_min")
_KEY = ("ticker", "as_of", "horizon_min")
"""Of which a run predicts each but once."""
_MICRO_BATCHES = b"stockflow.micro_batches"
"""In an object's metadata: JSON of [number, rows] for each micro-batch in it, in the order of the rows."""


@dataclass(frozen=True)
class BatchSummary:
    """What a micro-batch came to: its ticks and what became of them, and its predictions.

    newest_ts: start of the newest bar that gave one (epoch s), None when none did; scoring_s: the longest that a bucket
    took for its forecasts.
    """

    micro_batch: int
    predictions: int
    newest_ts: int | None
    ticks: int
    counts: TickCounts
    scoring_s: float


class PredictionSink:
    """Writes each micro-batch once: a repeated one takes its own place again.

    object_rows: see PredictionObjects; before: what earlier streams of the run have left, which is not written again;
    on_batch: told after each micro-batch what it came to. written: predictions written by this process.
    """

    def __init__(
        self,
        bucket: Bucket,
        run_id: str,
        clock: Clock,
        object_rows: int,
        on_batch: Callable[[BatchSummary], None] = lambda summary: None,
        before: Before | None = None,
    ) -> None:
        self.written = 0
        self._clock = clock
        self._on_batch = on_batch
        self._before = before or Before()
        self._objects = PredictionObjects(bucket, run_id, object_rows)
        self._latest = LatestPredictions(bucket)

    def __call__(self, batch: Any, micro_batch: int) -> None:
        """For `foreachBatch`: the rows of a micro-batch are few, one for each ticker, minute and horizon."""
        table = batch.toArrow()
        of_bucket = pc.not_equal(table["summary"], "")
        summaries = [json.loads(text) for text in table.filter(of_bucket)["summary"].to_pylist()]
        table = table.filter(pc.invert(of_bucket)).drop_columns(["summary"])
        table = self._before.without(to_contract(table, self._clock().timestamp()))
        table = table.sort_by([(name, "ascending") for name in _ORDER])
        as_of = table["as_of"].cast(pa.int64()).to_numpy() // 1000
        if len(table):
            minutes, place = np.unique(as_of, return_inverse=True)
            days = np.array([market_day(utc(int(ts))) for ts in minutes])[place]
            for day in sorted(set(days)):
                number = self._before.micro_batches + micro_batch
                self._objects.write(day, number, table.filter(pa.array(days == day)))
            self._latest.write(table)
            self.written += len(table)
        self._on_batch(_summed(micro_batch, as_of, summaries))


@dataclass(frozen=True)
class Before:
    """What streams of the run left whose checkpoint is lost. micro_batches: the number of the first one after them.

    keys: of _KEY, the predictions that they stored.
    """

    micro_batches: int = 0
    keys: pa.Table | None = None

    def without(self, table: pa.Table) -> pa.Table:
        """The predictions that are not stored yet."""
        keys = self.keys
        if keys is None or not len(table) or pc.min(table["as_of"]).as_py() > pc.max(keys["as_of"]).as_py():
            return table
        return table.join(keys, list(_KEY), join_type="left anti", use_threads=False).cast(table.schema)


def next_micro_batch(bucket: Bucket, run_id: str, day: date) -> int:
    """The number after those of all micro-batches that are stored of a run's day; 0 when there is none."""
    keys = _keys(bucket, run_id, day)
    return 1 + max(number for number, _ in _micro_batches(get_table(bucket, keys[-1]))) if keys else 0


def stored_before(bucket: Bucket, run_id: str, day: date, micro_batch: int) -> Before:
    """What is stored of a run's day of micro-batches before this one."""
    keys = [key for key in _keys(bucket, run_id, day) if contract.predictions_micro_batch(key) < micro_batch]
    tables = [_until(get_table(bucket, key), micro_batch)[0].select(_KEY) for key in keys]
    return Before(micro_batch, pa.concat_tables(tables) if tables else None)


class PredictionObjects:
    """A run's predictions by day. The newest object of a day is written anew with each micro-batch until it is full.

    S3 replaces an object at once, so whoever lists and reads sees each prediction once at every moment, and no
    object is ever merged into another. full: rows from which on the next micro-batch begins an object of its own.
    Which object a micro-batch goes to follows from what the ones before it came to: it is the same when it is repeated.
    An object is replaced only as it was read or written here: ServingError when another stream of the run is at work.
    """

    def __init__(self, bucket: Bucket, run_id: str, full: int) -> None:
        self._bucket, self._run_id, self._full = bucket, run_id, full
        self._open: dict[date, _Object] = {}

    def write(self, day: date, micro_batch: int, table: pa.Table) -> None:
        """Store a micro-batch's predictions (contract.PREDICTIONS) for bars of one day."""
        held = self._open.get(day) or self._find(day, micro_batch)
        if held is None or (len(held.table) >= self._full and not held.repeated):
            held = _Object(micro_batch, table.slice(0, 0), (), "")
        micro_batches = (*held.micro_batches, (micro_batch, len(table)))
        whole = pa.concat_tables([held.table, table])
        tag = self._put(day, held, whole.replace_schema_metadata({_MICRO_BATCHES: json.dumps(micro_batches).encode()}))
        # A day that is over comes back with a late bar at most: it is found again.
        self._open = {day: _Object(held.first, whole, micro_batches, tag)}

    def _put(self, day: date, held: _Object, whole: pa.Table) -> str:
        key = contract.predictions_key(day, self._run_id, held.first)
        try:
            return put_table(self._bucket, key, whole, replaces=held.tag)
        except (ObjectChanged, ObjectMissing) as exc:
            stored, tag = get_tagged_table(self._bucket, key)
            if stored.equals(whole, check_metadata=True):  # it was we: S3's answer was lost
                return tag
            raise ServingError(
                f"another stream of run {self._run_id} is at work: it has written {key}; stop one of them"
            ) from exc

    def _find(self, day: date, micro_batch: int) -> _Object | None:
        """What the micro-batches before this one left in the newest object that it may belong to."""
        keys = _keys(self._bucket, self._run_id, day)
        firsts = [first for key in keys if (first := contract.predictions_micro_batch(key)) <= micro_batch]
        if not firsts:
            return None
        table, tag = get_tagged_table(self._bucket, contract.predictions_key(day, self._run_id, firsts[-1]))
        kept, micro_batches = _until(table, micro_batch)
        return _Object(firsts[-1], kept, micro_batches, tag, repeated=len(micro_batches) < len(_micro_batches(table)))


@dataclass(frozen=True)
class _Object:
    """An object's first micro-batch, its rows, how many of them are of which micro-batch, and its ETag ("": it is new).

    repeated: whether the micro-batch to come was in it already: it has its place there, whatever `full` is by now.
    """

    first: int
    table: pa.Table
    micro_batches: tuple[tuple[int, int], ...]
    tag: str
    repeated: bool = False


def _keys(bucket: Bucket, run_id: str, day: date) -> list[str]:
    return contract.predictions_of_run(bucket.keys(contract.predictions_run_prefix(day, run_id)), run_id)


def _micro_batches(table: pa.Table) -> list[tuple[int, int]]:
    return [(number, rows) for number, rows in json.loads(table.schema.metadata[_MICRO_BATCHES])]


def _until(table: pa.Table, micro_batch: int) -> tuple[pa.Table, tuple[tuple[int, int], ...]]:
    """The rows of an object that micro-batches before this one left, and which those are."""
    kept = tuple((number, rows) for number, rows in _micro_batches(table) if number < micro_batch)
    return table.slice(0, sum(rows for _, rows in kept)).replace_schema_metadata(), kept


def to_contract(table: pa.Table, produced_at_s: float) -> pa.Table:
    """The stream's rows (as_of in epoch seconds) in the schema of contract.PREDICTIONS."""
    schema = arrow_schema(contract.PREDICTIONS)
    as_of = pa.array(table["as_of"].to_numpy() * 1000).cast(schema.field("as_of").type)
    produced = pa.array(np.full(len(table), int(produced_at_s * 1000))).cast(schema.field("produced_at").type)
    table = table.set_column(table.schema.get_field_index("as_of"), "as_of", as_of)
    return table.append_column("produced_at", produced).select(schema.names).cast(schema)


def _summed(micro_batch: int, as_of: Any, summaries: Sequence[dict[str, Any]]) -> BatchSummary:
    """The micro-batch's summary from those of its buckets."""
    return BatchSummary(
        micro_batch=micro_batch,
        predictions=len(as_of),
        newest_ts=int(as_of[-1]) if len(as_of) else None,
        ticks=sum(one["ticks"] for one in summaries),
        counts=TickCounts.sum_of(TickCounts(**one["counts"]) for one in summaries),
        scoring_s=max((one["scoring_s"] for one in summaries), default=0.0),
    )

"""Predictions as they are stored: of the days, objects and columns that are asked for, each prediction once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app import contract
from app.consumer.frames import Frame, check_frame, to_frame
from app.consumer.selection import Instant, Period, Selection, columns_of, period, selection
from app.consumer.source import Source, open_source, place_of
from app.errors import ObjectChanged, ObjectMissing, StorageError
from app.storage import Bucket, ObjectInfo
from app.tables import arrow_schema

COLUMNS: Final = tuple(column.name for column in contract.PREDICTIONS)
KEY: Final = ("as_of", "ticker", "horizon_min")
"""What tells predictions apart, in the order in which they are given."""
_AT_ONCE = 8
_TRIES = 5
"""A running stream writes an object anew with each micro-batch, seconds apart; reading one takes far less."""
_TIMES = [column.name for column in contract.PREDICTIONS if column.arrow_type.startswith("timestamp")]


def predictions(
    start: Instant,
    end: Instant,
    tickers: str | Iterable[str] | None = None,
    *,
    columns: str | Iterable[str] | None = None,
    horizons_min: int | Iterable[int] | None = None,
    run_id: str | None = None,
    frame: Frame = "pandas",
    bucket: Source | None = None,
) -> Any:
    """Predictions from `start` to `end`, both included, by as_of, ticker and horizon; no rows where there are none.

    start, end: dates, datetimes or ISO text; a date is a New York session, an instant bounds as_of and is in UTC unless
    it says otherwise. columns: some of contract.PREDICTIONS, of which alone, and of the three that rows are ordered by,
    anything is fetched. run_id: of one run; otherwise, where several predicted the same, what was produced last.
    frame: pandas, polars or arrow. bucket: its name, or a folder; by default STOCKFLOW_PREDICTIONS_BUCKET.
    Raises SettingsError for what cannot be asked and StorageError for what cannot be read.
    """
    check_frame(frame)
    wanted, when = columns_of(columns, COLUMNS), period(start, end)
    rows = read_rows(open_source(bucket), when, selection(tickers, horizons_min, run_id), wanted)
    return to_frame(rows.select(wanted), frame)


def latest(
    tickers: str | Iterable[str] | None = None,
    *,
    columns: str | Iterable[str] | None = None,
    horizons_min: int | Iterable[int] | None = None,
    frame: Frame = "pandas",
    bucket: Source | None = None,
) -> Any:
    """Each ticker's predictions as of its newest bar, one for each horizon, by ticker; no rows where there are none.

    Reads `latest.json` alone. Arguments and errors as of `predictions`, and StorageError when it is of another version
    of the schema than this code reads.
    """
    check_frame(frame)
    wanted = columns_of(columns, COLUMNS)
    rows = selection(tickers, horizons_min).rows(read_latest(open_source(bucket)))
    return to_frame(rows.select(wanted), frame)


def sessions(*, run_id: str | None = None, bucket: Source | None = None) -> list[date]:
    """The New York sessions of which there are predictions, ascending. Lists all keys: a page for every 1,000."""
    objects = objects_of(open_source(bucket), Period(date.min, date.max), Selection(run_id=run_id))
    return sorted({contract.predictions_day(info.key) for info in objects})


def read_rows(source: Bucket, when: Period, which: Selection, columns: Sequence[str]) -> pa.Table:
    """The columns and those of KEY, of each prediction once, by KEY."""
    keys = [info.key for info in objects_of(source, when, which)]
    runs = {contract.predictions_run(key) for key in keys}
    wanted = [name for name in COLUMNS if name in {*columns, *KEY} or (name == "produced_at" and len(runs) > 1)]
    read = partial(read_object, source, columns=wanted)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        tables = [when.rows(which.rows(table)) for table in pool.map(read, keys)]
    empty = arrow_schema(contract.PREDICTIONS).empty_table().select(wanted)
    rows = pa.concat_tables([empty, *tables])
    if len(runs) <= 1:
        return rows.sort_by([(name, "ascending") for name in KEY])
    rows = rows.sort_by([(name, "ascending") for name in (*KEY, "produced_at")])  # stable: later objects win a tie
    return rows.filter(lasts(rows, KEY))


def objects_of(source: Bucket, when: Period, which: Selection) -> Iterator[ObjectInfo]:
    """Objects below the prefixes of the days, in the order of their keys: one listing, for the days follow another."""
    for info in source.objects(contract.PREDICTIONS_PREFIX, start_after=contract.predictions_day_prefix(when.first)):
        if which.has(info.key):
            if contract.predictions_day(info.key) > when.last:
                return
            yield info


def read_object(source: Bucket, key: str, columns: Sequence[str]) -> pa.Table:
    """Columns of one object, all of the same version of it: read again when a stream replaces it meanwhile."""
    for left in reversed(range(_TRIES)):
        try:
            return _read_once(source, key, list(columns))
        except ObjectChanged:
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


def read_latest(source: Bucket) -> pa.Table:
    """The rows of `latest.json`; none without one."""
    schema, place = arrow_schema(contract.PREDICTIONS), place_of(source, contract.LATEST_PREDICTIONS_KEY)
    try:
        body = source.get(contract.LATEST_PREDICTIONS_KEY)
    except ObjectMissing:
        return schema.empty_table()
    try:
        told = json.loads(body)
        if (version := told["schema_version"]) != contract.PREDICTIONS_SCHEMA_VERSION:
            raise StorageError(
                f"{place} has schema version {version}, and this stockflow reads {contract.PREDICTIONS_SCHEMA_VERSION}:"
                " take the version of stockflow that is deployed"
            )
        rows = [row | {name: datetime.fromisoformat(row[name]) for name in _TIMES} for row in told["predictions"]]
        return pa.Table.from_pylist(rows, schema)
    except (ValueError, KeyError, TypeError, pa.ArrowException) as exc:
        raise StorageError(f"{place} holds no predictions as stockflow writes them: {exc!r}") from exc


def _read_once(source: Bucket, key: str, columns: list[str]) -> pa.Table:
    with source.open(key) as opened:
        try:
            file = pq.ParquetFile(opened)
            if lacking := [name for name in columns if name not in file.schema_arrow.names]:
                raise StorageError(
                    f"{place_of(source, key)} has no {', '.join(lacking)}: an earlier stockflow wrote it, in another"
                    f" schema than version {contract.PREDICTIONS_SCHEMA_VERSION}; ask for other days or columns"
                )
            # Without threads: see app.tables. The object's own metadata are no part of the rows.
            return file.read(columns, use_threads=False).select(columns).replace_schema_metadata()
        except (pa.ArrowException, OSError) as exc:
            raise StorageError(f"{place_of(source, key)} is not a Parquet object: {exc}") from exc


def lasts(rows: pa.Table, names: Sequence[str]) -> pa.ChunkedArray:
    """Which rows, ordered by these columns, are the last of those that are equal in them."""
    same = [pc.equal(rows[name][1:].combine_chunks(), rows[name][:-1].combine_chunks()) for name in names]
    followed = same[0]
    for other in same[1:]:
        followed = pc.and_(followed, other)
    return pa.concat_arrays([pc.invert(followed), pa.array([True][: len(rows)])])

"""latest.json: the newest predictions of each ticker, for readers that want nothing else."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Final

import pandas as pd
import pyarrow as pa

from app import contract
from app.errors import ObjectChanged, ObjectMissing
from app.storage import JSON_TYPE, Bucket
from app.tables import arrow_schema

_TIMES = [column.name for column in contract.PREDICTIONS if column.arrow_type.startswith("timestamp")]
_REMEMBERED: Final = timedelta(days=7)


class LatestPredictions:
    """Each ticker's predictions as of its newest bar, one for each horizon, of one model; across runs.

    Two streams may write it at a time: what one stored meanwhile, the other takes in. A ticker that was not predicted
    for a week before the newest prediction is left out.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._held, self._etag = _read(bucket)

    def write(self, table: pa.Table) -> None:
        """Let newer predictions (contract.PREDICTIONS) take the place of those that are held, and store them all."""
        self._held = newest(pa.concat_tables([self._held, table]))
        while True:
            document = {"schema_version": contract.PREDICTIONS_SCHEMA_VERSION, "predictions": _rows(self._held)}
            body = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
            key = contract.LATEST_PREDICTIONS_KEY
            try:
                self._etag = self._bucket.put(key, body, JSON_TYPE, replaces=self._etag)
            except (ObjectChanged, ObjectMissing):
                stored, self._etag = _read(self._bucket)
                self._held = newest(pa.concat_tables([stored, self._held]))
            else:
                return


def newest(table: pa.Table) -> pa.Table:
    """The rows as of each ticker's newest bar, by ticker and horizon; a later row takes the place of an earlier one.

    Where they are of several models, those of the last row's.
    """
    rows = pd.DataFrame({name: table[name].to_numpy() for name in ("ticker", "horizon_min", "model_id")})
    rows["as_of"] = table["as_of"].cast(pa.int64()).to_numpy()  # ms
    rows = rows[rows["as_of"] > rows["as_of"].max() - _REMEMBERED / timedelta(milliseconds=1)]
    rows = rows[rows["as_of"] == rows.groupby("ticker")["as_of"].transform("max")]
    rows = rows[rows["model_id"] == rows.groupby("ticker")["model_id"].transform("last")]
    rows = rows.drop_duplicates(["ticker", "horizon_min"], keep="last").sort_values(["ticker", "horizon_min"])
    return table.take(rows.index.to_numpy())


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as JSON has them, times in ISO 8601; column by column, for there may be ten thousand of them."""
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in _TIMES or column.type == pa.string():
            coded = column.combine_chunks().dictionary_encode()
            values = [value.isoformat() if name in _TIMES else value for value in coded.dictionary.to_pylist()]
            columns.append([values[code] for code in coded.indices.to_numpy().tolist()])
        else:
            columns.append(column.to_numpy().tolist())  # ten times as fast as to_pylist
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _read(bucket: Bucket) -> tuple[pa.Table, str]:
    """What is stored, and its ETag, empty without one; no rows where they cannot be read, or have other columns."""
    schema = arrow_schema(contract.PREDICTIONS)
    try:
        body, etag = bucket.get_tagged(contract.LATEST_PREDICTIONS_KEY)
    except ObjectMissing:
        return schema.empty_table(), ""
    try:
        held = json.loads(body)
        if held["schema_version"] != contract.PREDICTIONS_SCHEMA_VERSION:
            return schema.empty_table(), etag
        rows = [row | {name: datetime.fromisoformat(row[name]) for name in _TIMES} for row in held["predictions"]]
        return pa.Table.from_pylist(rows, schema), etag
    except (ValueError, KeyError, TypeError):  # not what this code writes: begun anew
        return schema.empty_table(), etag

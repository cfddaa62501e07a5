"""latest.json: the newest predictions of each ticker, for readers that want nothing else."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from app import contract
from app.errors import ObjectMissing
from app.storage import Bucket
from app.tables import arrow_schema

_TIMES = [column.name for column in contract.PREDICTIONS if column.arrow_type.startswith("timestamp")]


class LatestPredictions:
    """Each ticker's predictions as of its newest bar, one for each horizon, of one model; across runs."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._held = _read(bucket)

    def write(self, table: pa.Table) -> None:
        """Let newer predictions (contract.PREDICTIONS) take the place of those that are held, and store them all."""
        self._held = newest(pa.concat_tables([self._held, table]))
        document = {"schema_version": contract.PREDICTIONS_SCHEMA_VERSION, "predictions": _rows(self._held)}
        body = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        self._bucket.put(contract.LATEST_PREDICTIONS_KEY, body, "application/json")


def newest(table: pa.Table) -> pa.Table:
    """The rows as of each ticker's newest bar, by ticker and horizon; a later row takes the place of an earlier one.

    Where they are of several models, those of the last row's.
    """
    _, ticker = np.unique(table["ticker"].to_numpy(), return_inverse=True)
    as_of, horizon = table["as_of"].cast(pa.int64()).to_numpy(), table["horizon_min"].to_numpy()
    model, place = table["model_id"].to_numpy(), np.arange(len(table))
    order = np.lexsort((place, horizon, as_of, ticker))
    last = np.append(ticker[order][1:] != ticker[order][:-1], np.ones(min(1, len(order)), bool))  # of each ticker
    latest_ts = as_of[order[last]]
    kept = place[as_of == latest_ts[ticker]]
    newest_place = np.zeros(len(latest_ts), np.int64)
    newest_place[ticker[kept]] = kept  # ascending: the last one stays
    kept = kept[model[kept] == model[newest_place[ticker[kept]]]]
    kept = kept[np.lexsort((kept, horizon[kept], ticker[kept]))]
    pair = np.stack([ticker[kept], horizon[kept]])
    return table.take(kept[np.append((pair[:, 1:] != pair[:, :-1]).any(axis=0), np.ones(min(1, len(kept)), bool))])


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


def _read(bucket: Bucket) -> pa.Table:
    """What an earlier stream left; nothing where that cannot be read, or has other columns."""
    schema = arrow_schema(contract.PREDICTIONS)
    try:
        held = bucket.get_json(contract.LATEST_PREDICTIONS_KEY)
        if held["schema_version"] != contract.PREDICTIONS_SCHEMA_VERSION:
            return schema.empty_table()
        rows = [row | {name: datetime.fromisoformat(row[name]) for name in _TIMES} for row in held["predictions"]]
        return pa.Table.from_pylist(rows, schema)
    except (ObjectMissing, ValueError, KeyError, TypeError):  # not there, or not what this code writes: begun anew
        return schema.empty_table()

"""Tables in S3: Parquet objects in the schemas of the contract."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from app import contract
from app.errors import StorageError
from app.storage import Bucket

PARQUET_TYPE: Final = "application/vnd.apache.parquet"


def put_table(
    bucket: Bucket, key: str, table: pa.Table, groups: Sequence[int] = (), *, replaces: str | None = None
) -> str:
    """Write a table as one zstd Parquet object; returns its ETag.

    groups: rows of each of its row groups, all of them together; replaces: as in Bucket.put.
    """
    return bucket.put(key, parquet(table, groups), PARQUET_TYPE, replaces=replaces)


def parquet(table: pa.Table, groups: Sequence[int] = ()) -> bytes:
    """A table as zstd Parquet; the same rows give the same bytes."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        if not groups:
            writer.write_table(table)
        first = 0
        for rows in groups:
            writer.write_table(table.slice(first, rows), row_group_size=rows)
            first += rows
    return sink.getvalue()


def get_table(bucket: Bucket, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet object, only `columns` of it when given."""
    return get_tagged_table(bucket, key, columns)[0]


def get_tagged_table(bucket: Bucket, key: str, columns: Sequence[str] | None = None) -> tuple[pa.Table, str]:
    """As get_table, and the object's ETag."""
    body, tag = bucket.get_tagged(key)
    try:
        # Without threads: pyarrow 26's pool aborted one in three processes that ended soon after such a read.
        return pq.read_table(io.BytesIO(body), columns=columns, use_threads=False), tag
    except pa.ArrowInvalid as exc:
        raise StorageError(f"s3://{bucket.name}/{key} is not a Parquet object: {exc}") from exc


def arrow_schema(columns: Sequence[contract.Column]) -> pa.Schema:
    """The Arrow schema of a table of the contract."""
    types = {
        "string": pa.string(),
        "double": pa.float64(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "timestamp[ms, tz=UTC]": pa.timestamp("ms", tz="UTC"),
    }
    return pa.schema([pa.field(column.name, types[column.arrow_type], nullable=False) for column in columns])

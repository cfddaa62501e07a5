"""A Spark streaming source over tick objects in S3.

The keys ascend with time, so that "what is new" is one listing after the last key: no connector jar and
no notification queue, the same code against AWS and the embedded one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceStreamReader

from app import contract
from app.serving.stream_bucket import stream_bucket
from app.serving.stream_reader import SCHEMA, TickStreamReader
from app.serving.ticks import columns_of
from app.tables import get_table


class TickReader(TickStreamReader[str]):
    """A place is a key: what is up to and including it has been read. limit: objects of one micro-batch.

    options: also bucket and prefix.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        super().__init__(options)
        self._bucket_name, self._prefix = options["bucket"], options["prefix"]

    def beginning(self) -> str:
        """Before the first key."""
        return ""

    def newest(self, at: str) -> tuple[str, float]:
        """The last key of the next `limit` ones."""
        found = list(islice(stream_bucket(self._bucket_name).objects(self._prefix, at), self.limit))
        return (found[-1].key, max(info.modified for info in found).timestamp()) if found else (at, 0.0)

    def between(self, start: str, end: str) -> Sequence[Any]:
        """Keys with their numbers in the micro-batch."""
        found = stream_bucket(self._bucket_name).keys(self._prefix, start)
        keys = list(enumerate(key for key in found if key <= end))
        return [tuple(keys[i :: self.tasks]) for i in range(min(self.tasks, len(keys)))]

    def tables(self, what: Sequence[tuple[int, str]]) -> Iterator[pa.Table]:
        """The ticks of these objects."""
        bucket = stream_bucket(self._bucket_name)
        for number, key in what:
            yield columns_of(get_table(bucket, key, [column.name for column in contract.TICKS]), number)


class TickSource(DataSource):
    """The source as Spark knows it."""

    @classmethod
    def name(cls) -> str:
        """The format's name."""
        return "stockflow_ticks"

    def schema(self) -> str:
        """Columns of the stream."""
        return SCHEMA

    def streamReader(self, schema: Any) -> DataSourceStreamReader:  # noqa: N802  Spark's name
        """A reader with this source's options."""
        return TickReader(dict(self.options))

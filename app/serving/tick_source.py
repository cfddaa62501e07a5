"""A Spark streaming source over tick objects in S3.

The keys ascend with time, so that "what is new" is one listing after the last key: no connector jar and
no notification queue, the same code against AWS and the embedded one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition

from app import contract
from app.serving.ticks import columns_of
from app.storage import Bucket
from app.tables import get_table

SOURCE = "stockflow_ticks"
SCHEMA = (
    "ticker string, ts long, open double, high double, low double, close double, volume double, market_return double"
)
"""ts: epoch seconds of the bar's start; market_return: see app.serving.ticks, one object is one poll."""


class TickKeys(InputPartition):
    """Objects that one task reads."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        super().__init__(None)
        self.keys = keys


class TickReader(DataSourceStreamReader):
    """Offsets are keys: what is up to and including `key` has been read.

    options: bucket, prefix, tasks (into how many the objects of a micro-batch are dealt).
    """

    def __init__(self, options: dict[str, str]) -> None:
        self._bucket_name = options["bucket"]
        self._prefix = options["prefix"]
        self._tasks = int(options["tasks"])
        self._last_key = ""

    def initialOffset(self) -> dict[str, str]:  # noqa: N802  Spark's name
        """Before the first key."""
        return {"key": ""}

    def latestOffset(self) -> dict[str, str]:  # noqa: N802  Spark's name
        """The newest key there is."""
        keys = Bucket(self._bucket_name).keys(self._prefix, self._last_key)
        if keys:
            self._last_key = keys[-1]
        return {"key": self._last_key}

    def partitions(self, start: dict[str, str], end: dict[str, str]) -> list[InputPartition]:
        """The objects after `start` up to `end`, in at most `tasks` parts."""
        found = Bucket(self._bucket_name).keys(self._prefix, start["key"])
        keys = [key for key in found if key <= end["key"]]
        return [TickKeys(tuple(keys[i :: self._tasks])) for i in range(min(self._tasks, len(keys)))]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """The ticks of one part."""
        if not isinstance(partition, TickKeys):
            raise TypeError(f"not a part of this source: {partition!r}")
        bucket = Bucket(self._bucket_name)
        for key in partition.keys:
            table = get_table(bucket, key, [column.name for column in contract.TICKS])
            yield from columns_of(table).to_batches()

    def commit(self, end: dict[str, str]) -> None:
        """Nothing to release: objects stay until the bucket's lifecycle rule removes them."""


class TickSource(DataSource):
    """Registers TickReader under SOURCE."""

    @classmethod
    def name(cls) -> str:
        """The format's name."""
        return SOURCE

    def schema(self) -> str:
        """Columns of the stream."""
        return SCHEMA

    def streamReader(self, schema: Any) -> DataSourceStreamReader:  # noqa: N802  Spark's name
        """A reader with this source's options."""
        return TickReader(dict(self.options))

"""A Spark streaming source over a Kinesis stream.

A place is the sequence number of the last record of each shard that has been read, so that a range of records can be
read again, to the record, as often as Spark asks for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceStreamReader

from app.errors import ServingError
from app.serving.kinesis import PAGE, Cursor, KinesisStream, Shard
from app.serving.stream_reader import SCHEMA, TickStreamReader
from app.serving.tick_records import columns_from

Places = dict[str, str]
"""Sequence number of the last record read, by shard; a shard of which none has been read is not in it."""
Range = tuple[str, str, str]
"""Shard, the record after which it starts ("": the oldest) and the one with which it ends."""

_LOOK_S: Final = 0.4
"""A shard answers five GetRecords a second; half of them are left to the tasks that read what was planned."""
_PAGES: Final = 10
"""After so many pages a look leaves the rest to the next one, which goes on there."""


class KinesisReader(TickStreamReader[Places]):
    """limit: records of one micro-batch, but at least one of each shard that has one.

    The shards that another one was split or merged into are read from the micro-batch on that finds nothing more in
    it: so the records of one ticker, which are in one shard at a time, are in one shard of each micro-batch, in order.

    options: also stream, and look_s, the time between two looks at the stream.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        super().__init__(options)
        self._name, self._look_s = options["stream"], float(options.get("look_s", _LOOK_S))
        self._looked_s = float("-inf")
        self._cursors: dict[str, Cursor] = {}
        self._ended: set[str] = set()

    def beginning(self) -> Places:
        """Before the oldest record that the stream holds."""
        return {}

    def newest(self, at: Places) -> tuple[Places, float]:
        """Read on from each shard's place to learn the numbers of the next records."""
        if time.monotonic() - self._looked_s < self._look_s:
            return at, 0.0
        self._looked_s = time.monotonic()
        shards = {shard.shard_id: shard for shard in self._stream.shards()}
        read = {parent for shard in shards.values() if shard.shard_id in at for parent in shard.parents}
        if gone := sorted(set(at) - set(shards) - read - self._ended):
            raise ServingError(
                f"Kinesis stream {self._name} no longer lists {gone[0]}, and it is not known to be read to its end:"
                " its retention must outlast a stop of the stream; start a new run id"
            )
        done, looked, new, left = set(read), set[str](), dict[str, str](), self.limit
        stored_s = 0.0
        while ready := [
            shard
            for shard in shards.values()
            if shard.shard_id not in looked | read
            and all(parent in done or parent not in shards for parent in shard.parents)
        ]:
            for i, shard in enumerate(ready):
                place = at.get(shard.shard_id, "")
                look = self._look(shard, place, max(1, left // (len(ready) - i)))
                looked.add(shard.shard_id)
                left -= look.taken
                if look.taken:
                    new[shard.shard_id], stored_s = look.last, max(stored_s, look.stored_s)
                elif look.ended:
                    done.add(shard.shard_id)
        self._ended |= done
        return {**at, **new}, stored_s

    def between(self, start: Places, end: Places) -> Sequence[Any]:
        """The shards' ranges, dealt to the tasks."""
        ranges = [(shard, start.get(shard, ""), last) for shard, last in end.items() if last != start.get(shard)]
        return [tuple(ranges[i :: self.tasks]) for i in range(min(self.tasks, len(ranges)))]

    def tables(self, what: Sequence[Range]) -> Iterator[pa.Table]:
        """The records of these ranges, each a poll of its own."""
        polls = 0
        for each in what:
            for records in self._stream.between(*each):
                yield columns_from(records, polls)
                polls += len(records)

    def _look(self, shard: Shard, after: str, share: int) -> _Look:
        """Read up to `share` records on."""
        cursor = self._cursors.get(shard.shard_id)
        if cursor is None or cursor.last != after:
            cursor = self._cursors[shard.shard_id] = Cursor(self._stream, shard.shard_id, after)
        taken, ended, stored_s = 0, False, 0.0
        for _ in range(_PAGES):
            page = cursor.read(min(PAGE, share - taken))
            taken, stored_s = taken + len(page.records), max(stored_s, page.stored_s)
            ended = cursor.ended or (shard.closed and page.caught_up and not page.records)
            if ended or taken >= share or (page.caught_up and not shard.closed):
                break
        return _Look(cursor.last, taken, stored_s, ended)

    @cached_property
    def _stream(self) -> KinesisStream:
        return KinesisStream(self._name)


@dataclass(frozen=True)
class _Look:
    """Records that a look at a shard found: the last one's number, how many, and when the newest arrived (epoch s).

    ended: the shard has come to its end.
    """

    last: str
    taken: int
    stored_s: float
    ended: bool


class KinesisTickSource(DataSource):
    """The source as Spark knows it."""

    @classmethod
    def name(cls) -> str:
        """The format's name."""
        return "stockflow_kinesis"

    def schema(self) -> str:
        """Columns of the stream."""
        return SCHEMA

    def streamReader(self, schema: Any) -> DataSourceStreamReader:  # noqa: N802  Spark's name
        """A reader with this source's options."""
        return KinesisReader(dict(self.options))

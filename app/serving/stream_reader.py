"""What all sources of ticks have in common: where the stream stands, and with which model it goes on.

Spark writes a source's offset into its log before a micro-batch runs. The model stands in the offset too, so that a
micro-batch that is run again, after whatever crash, is scored with the model of the first time.
"""

from __future__ import annotations

import json
import sys
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

import pyarrow as pa
from pyspark.sql.datasource import DataSourceStreamReader, InputPartition

from app.serving.follow import ModelFollower
from app.serving.stream_bucket import stream_bucket
from app.serving.worker import forget_archives

SCHEMA = (
    "ticker string, ts long, open double, high double, low double, close double, volume double, market_return double,"
    " poll long, model_id string"
)
"""The columns of app.serving.ticks.columns_of, and the model that the micro-batch is scored with."""

At = TypeVar("At")
Offset = dict[str, Any]
"""at: up to where has been read, in the source's own terms; stored_s: when the newest tick before it was stored
(epoch s); model_id: in use since; refused: see ModelFollower."""


class Part(InputPartition, Generic[At]):
    """What one task reads, in the source's own terms, and the model of its micro-batch."""

    def __init__(self, what: At, model_id: str) -> None:
        super().__init__(None)
        self.what, self.model_id = what, model_id


class TickStreamReader(DataSourceStreamReader, Generic[At]):
    """A source of ticks that says how far it has read (At), what lies between two such places, and reads it.

    options: models (bucket), model_id (to start with), tasks (into how many a micro-batch is dealt, at most), limit
    (how much it holds, at most, in the source's own unit) and offset: JSON of the last one that was planned, empty
    when there is none.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        self.tasks, self.limit = int(options["tasks"]), int(options["limit"])
        self._models_name, self._first_model = options["models"], options["model_id"]
        self._planned: Offset | None = json.loads(options["offset"]) if options["offset"] else None

    @abstractmethod
    def beginning(self) -> At:
        """Where a stream starts; always the same."""

    @abstractmethod
    def newest(self, at: At) -> tuple[At, float]:
        """How far a micro-batch that starts at `at` may read, and when the newest tick of it was stored (epoch s).

        `at` itself when there is nothing new.
        """

    @abstractmethod
    def between(self, start: At, end: At) -> Sequence[Any]:
        """What lies after `start` up to `end`, in parts for at most `tasks` tasks."""

    @abstractmethod
    def tables(self, what: Any) -> Iterator[pa.Table]:
        """The ticks of one part, in the columns of app.serving.ticks.columns_of."""

    def initialOffset(self) -> Offset:  # noqa: N802  Spark's name
        """Before the first tick."""
        return {"at": self.beginning(), "stored_s": 0.0, "model_id": self._first_model, "refused": ""}

    def latestOffset(self) -> Offset:  # noqa: N802  Spark's name
        """The end of the next micro-batch: the one before when there is nothing new."""
        planned = self._planned or self.initialOffset()
        at, stored_s = self.newest(planned["at"])
        if at != planned["at"]:
            refused = self._follower.refused
            self._follower.look()
            if self._follower.refused not in ("", refused):
                print(self._follower.refused, file=sys.stderr, flush=True)
            follower = self._follower
            planned = {"at": at, "stored_s": stored_s, "model_id": follower.model_id, "refused": follower.refused}
        self._planned = planned
        return planned

    def partitions(self, start: Offset, end: Offset) -> list[InputPartition]:
        """The micro-batch between two offsets, by tasks."""
        return [Part(what, end["model_id"]) for what in self.between(start["at"], end["at"])]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """The ticks of one part."""
        if not isinstance(partition, Part):
            raise TypeError(f"not a part of this source: {partition!r}")
        forget_archives()
        for table in self.tables(partition.what):
            model = pa.repeat(pa.scalar(partition.model_id), len(table))
            yield from table.append_column("model_id", model).to_batches()

    def commit(self, end: Offset) -> None:
        """Nothing to release: ticks stay until their source's own rule removes them."""

    @cached_property
    def _follower(self) -> ModelFollower:
        model_id = (self._planned or self.initialOffset())["model_id"]
        return ModelFollower(stream_bucket(self._models_name), model_id)

"""Where ticks come from: what Spark's readers are told, and how the driver knows that the feed has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from app import contract
from app.errors import StorageError
from app.serving.kinesis import PUT
from app.serving.kinesis_source import KinesisTickSource, Places
from app.serving.tick_source import TickSource
from app.settings import ServingSettings
from app.storage import Bucket


class Source(Protocol):
    """A source as the driver sees it; its places (`at`) are those of its reader, see app.serving.stream_reader."""

    @property
    def name(self) -> str:
        """Its format's name in Spark."""

    @property
    def options(self) -> Mapping[str, str]:
        """What its reader is told."""

    @property
    def where(self) -> str:
        """Where the ticks are, for people."""

    def end(self) -> Any:
        """Where the feed ended; None while it has not."""

    def reached(self, at: Any, end: Any) -> bool:
        """Whether what has been read up to `at` is all up to `end`."""


@dataclass(frozen=True)
class Begin:
    """What the readers of all sources are told.

    model_id: of the first micro-batch; offset: JSON of the last one that was planned, empty when there is none.
    """

    run_id: str
    models: str
    model_id: str
    offset: str

    def options(self, settings: ServingSettings) -> dict[str, str]:
        """The options of app.serving.stream_reader.TickStreamReader."""
        return {
            "models": self.models,
            "model_id": self.model_id,
            "offset": self.offset,
            "tasks": str(settings.partitions),
            "limit": str(settings.micro_batch_limit),
        }


class S3Source:
    """Tick objects of the run."""

    name = TickSource.name()

    def __init__(self, begin: Begin, settings: ServingSettings, market: Bucket) -> None:
        self._market, self._run_id = market, begin.run_id
        prefix = contract.ticks_prefix(begin.run_id)
        self.options = begin.options(settings) | {"bucket": market.name, "prefix": prefix}
        self.where = f"s3://{market.name}/{prefix}"

    def end(self) -> str | None:
        """The last key, once the feed has said so."""
        try:
            return str(self._market.get_json(contract.feed_end_key(self._run_id))["last_key"])
        except StorageError:  # not written yet; or an S3 that does not answer, which the next call asks again
            return None

    def reached(self, at: str, end: str) -> bool:
        """Keys ascend."""
        return at >= end


class KinesisSource:
    """Records of a Kinesis stream."""

    name = KinesisTickSource.name()

    def __init__(self, begin: Begin, settings: ServingSettings, market: Bucket) -> None:
        self._market, self._run_id = market, begin.run_id
        limit = str(settings.micro_batch_limit * PUT)
        self.options = begin.options(settings) | {"stream": settings.kinesis_stream, "limit": limit}
        self.where = f"Kinesis stream {settings.kinesis_stream}"

    def end(self) -> Places | None:
        """The last sequence number in each shard that the feed wrote to, once it has said so."""
        try:
            return dict(self._market.get_json(contract.feed_end_key(self._run_id))["last_sequence_numbers"])
        except StorageError:  # not written yet; or an S3 that does not answer, which the next call asks again
            return None

    def reached(self, at: Places, end: Places) -> bool:
        """Numbers ascend within a shard."""
        return all(int(at.get(shard, "-1")) >= int(last) for shard, last in end.items())


def make_source(begin: Begin, settings: ServingSettings, market: Bucket) -> Source:
    """The source that the settings name."""
    if settings.source == "kinesis":
        return KinesisSource(begin, settings, market)
    return S3Source(begin, settings, market)

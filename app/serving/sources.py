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
        """Whether what has been read up to `at` (None: nothing yet) is all up to `end`."""


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
        key: str | None = _told_at_the_end(self._market, self._run_id, "last_key")
        return key

    def reached(self, at: str | None, end: str) -> bool:
        """Keys ascend."""
        return (at or "") >= end


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
        places: Places | None = _told_at_the_end(self._market, self._run_id, "last_sequence_numbers")
        return places

    def reached(self, at: Places | None, end: Places) -> bool:
        """Numbers ascend within a shard."""
        return all(int((at or {}).get(shard, "-1")) >= int(last) for shard, last in end.items())


def _told_at_the_end(market: Bucket, run_id: str, what: str) -> Any:
    """What the feed says of its end; None while it has not ended, or S3 does not answer."""
    try:
        return market.get_json(contract.feed_end_key(run_id))[what]
    except StorageError:
        return None


def make_source(begin: Begin, settings: ServingSettings, market: Bucket) -> Source:
    """The source that the settings name."""
    if settings.source == "kinesis":
        return KinesisSource(begin, settings, market)
    return S3Source(begin, settings, market)

"""Where ticks come from: what Spark's readers are told, and how the driver knows that the feed has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from app import contract
from app.errors import ObjectMissing
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
        except ObjectMissing:
            return None

    def reached(self, at: str, end: str) -> bool:
        """Keys ascend."""
        return at >= end


def make_source(begin: Begin, settings: ServingSettings, market: Bucket) -> Source:
    """The source that the settings name."""
    return S3Source(begin, settings, market)

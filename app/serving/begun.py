"""Which checkpoint a run's stream goes on from, and which settings it belongs to: `runs/<run>/stream.json`."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any, Final

from app import contract
from app.errors import ObjectChanged, ObjectMissing, ServingError
from app.settings import ServingSettings
from app.storage import JSON_TYPE, Bucket, to_json

_TIED: Final = ("feed", "source", "kinesis_stream", "buckets", "partitions", "watermark_min")
"""Settings that the state in a checkpoint, its offsets, or the session that is streamed belong to."""


@dataclass(frozen=True)
class BegunStream:
    """stream_id: names its checkpoint; micro_batches: number of its first one, after those of earlier streams.

    tag: ETag of what is stored.
    """

    stream_id: str
    micro_batches: int
    tag: str


def begin_stream(
    run_id: str,
    settings: ServingSettings,
    market: Bucket,
    *,
    instead_of: BegunStream | None = None,
    micro_batches: int = 0,
) -> BegunStream:
    """The run's stream: the one that has begun, else a new one, which is stored.

    Its name is given once, so that a checkpoint of another bucket's run of the same name is not taken. instead_of: one
    whose checkpoint is lost, for a new one that begins with number `micro_batches`. ServingError when the stream was
    begun with other settings.
    """
    key = contract.stream_key(run_id)
    tied = {name: getattr(settings, name) for name in _TIED}
    stream_id = f"{run_id}-{uuid.uuid4().hex[:12]}"
    told = {"stream_id": stream_id, "micro_batches": micro_batches, **tied}
    try:
        tag = market.put(key, to_json(told), JSON_TYPE, replaces=instead_of.tag if instead_of else "")
        return BegunStream(stream_id, micro_batches, tag)
    except (ObjectChanged, ObjectMissing):
        body, tag = market.get_tagged(key)
    begun = json.loads(body)
    _refuse_others(run_id, begun, tied)
    return BegunStream(str(begun["stream_id"]), int(begun["micro_batches"]), tag)


def _refuse_others(run_id: str, begun: dict[str, Any], tied: dict[str, Any]) -> None:
    for name, value in tied.items():
        if begun[name] != value:
            raise ServingError(
                f"the stream of run {run_id} was begun with serving.{name}={begun[name]}, to which its state belongs,"
                f" and not {value}: set it so, or start a new run id"
            )

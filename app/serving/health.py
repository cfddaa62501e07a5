"""How the stream fares, as an object that a state machine, an operator or a dashboard can read."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

from app import contract
from app.clock import Clock
from app.errors import StorageError
from app.serving.sink import BatchSummary
from app.serving.stream_reader import Offset
from app.serving.ticks import TickCounts
from app.sessions import utc
from app.storage import Bucket

_EVERY: Final = timedelta(seconds=10)


class StreamHealth:
    """Writes contract.stream_health_key while the stream runs, and how it ended: finished, stopped or failed.

    counted: since the stream first began, but for the last seconds before each time that it was killed. model_id: in
    use; it follows the promoted one.
    """

    def __init__(self, market: Bucket, run_id: str, clock: Clock, model_id: str, *, resumed: bool = False) -> None:
        self.model_id = model_id
        self.counted = Counter({"predictions": 0, "ticks": 0, **asdict(TickCounts())})
        self._market, self._key, self._clock = market, contract.stream_health_key(run_id), clock
        self._refused, self._micro_batch, self._newest_ts = "", -1, 0
        self._written: datetime | None = None
        if resumed:
            self._go_on()

    def add(self, summary: BatchSummary) -> None:
        """Count one micro-batch."""
        self.counted.update(predictions=summary.predictions, ticks=summary.ticks, **asdict(summary.counts))
        self._micro_batch = summary.micro_batch
        self._newest_ts = max(self._newest_ts, summary.newest_ts or 0)

    def done(self, offset: Offset) -> None:
        """A micro-batch is done: its model, and why the promoted one is not taken up."""
        self.model_id, self._refused = offset["model_id"], offset["refused"]

    def write_now_and_then(self) -> None:
        """Write it when it was not written for some seconds. An S3 that does not answer is no reason to stop."""
        if self._written is None or self._clock() - self._written >= _EVERY:
            self._write("running", "")

    def _go_on(self) -> None:
        """Count on from what an earlier process wrote, if it did."""
        try:
            told = self._market.get_json(self._key)
            self.counted.update({name: int(told[name]) for name in self.counted})
        except (StorageError, ValueError, KeyError, TypeError):
            return

    def __enter__(self) -> StreamHealth:
        return self

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if exc is None:
            self._write("finished", "")
        else:
            self._write("failed" if isinstance(exc, Exception) else "stopped", str(exc))

    def _write(self, state: str, why: str) -> None:
        self._written = self._clock()
        told: dict[str, Any] = {
            "state": state,
            "why": why,
            "at": self._written.isoformat(timespec="seconds"),
            "micro_batch": self._micro_batch,
            "newest_bar": utc(self._newest_ts).isoformat() if self._newest_ts else None,
            "model_id": self.model_id,
            "refused": self._refused,
            **self.counted,
        }
        try:
            self._market.put_json(self._key, told)
        except StorageError:
            return

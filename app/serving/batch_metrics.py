"""What the stream tells CloudWatch."""

from __future__ import annotations

from datetime import timedelta
from queue import SimpleQueue

from app import contract
from app.clock import Clock
from app.metrics import Emit
from app.serving.sink import BatchSummary
from app.serving.stream_reader import Offset

_SILENCE = timedelta(minutes=1)


class BatchMetrics:
    """Publishes what a micro-batch came to, how long it took, and how far the stream lags behind its feed."""

    def __init__(self, clock: Clock, emit: Emit) -> None:
        self._clock, self._emit = clock, emit
        self._told = clock()
        self._summaries: SimpleQueue[BatchSummary] = SimpleQueue()

    def add(self, summary: BatchSummary) -> None:
        """Note what a micro-batch came to, for `publish`: a call to CloudWatch shall not hold up the next one."""
        self._summaries.put(summary)

    def publish(self) -> None:
        """Publish what micro-batches came to since the last time."""
        while not self._summaries.empty():
            self._tell(self._summaries.get())

    def _tell(self, summary: BatchSummary) -> None:
        self._told = self._clock()
        metrics = {
            contract.METRIC_PREDICTIONS: float(summary.predictions),
            contract.METRIC_TICKS: float(summary.ticks),
            contract.METRIC_LATE: float(summary.counts.late),
            contract.METRIC_DUPLICATE: float(summary.counts.duplicate),
            contract.METRIC_REVISED: float(summary.counts.revised),
            contract.METRIC_SKIPPED: float(summary.counts.skipped),
        }
        self._emit(metrics)

    def done(self, offset: Offset, began_s: float, took_s: float) -> None:
        """Publish of a micro-batch that is done how long it took, its model, its lag, and whether a model is refused.

        began_s: epoch s. The lag is the age of the newest tick in it, counted from when that was stored, which S3 knows
        to the second. Not the age of the bar: a replay feeds bars of hours ago, and a live bar is late by what the
        market's source takes, neither of which the stream can help.
        """
        metrics = {
            contract.METRIC_STREAM_LAG: max(0.0, began_s + took_s - offset["stored_s"]),
            contract.METRIC_BATCH: took_s,
            contract.METRIC_MODEL_REFUSED: float(bool(offset["refused"])),
        }
        self._emit({"model_id": offset["model_id"], **metrics})

    def alive(self) -> None:
        """Publish no predictions, once in a minute without a micro-batch: an alarm does not see what is missing."""
        if self._clock() - self._told >= _SILENCE:
            self._told = self._clock()
            self._emit({contract.METRIC_PREDICTIONS: 0.0})

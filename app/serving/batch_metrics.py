"""What the stream tells CloudWatch."""

from __future__ import annotations

from datetime import timedelta

from app import contract
from app.clock import Clock
from app.errors import StorageError
from app.metrics import Emit
from app.serving.sink import BatchSummary
from app.sessions import market_day, utc
from app.storage import Bucket

_SILENCE = timedelta(minutes=1)


class BatchMetrics:
    """Publishes what a micro-batch came to, how long it took, and how far the stream lags behind its feed.

    The lag is the age of the newest tick object in the micro-batch when its predictions lie in S3, in
    seconds; S3 knows an object's time to the second. Not the age of the bar: a replay feeds bars of hours
    ago, and a live bar is late by what the market's source takes, neither of which the stream can help.
    """

    def __init__(self, market: Bucket, run_id: str, clock: Clock, emit: Emit) -> None:
        self._market = market
        self._run_id = run_id
        self._clock = clock
        self._emit = emit
        self._told = clock()

    def __call__(self, summary: BatchSummary) -> None:
        """Publish what one micro-batch came to."""
        self._told = self._clock()
        metrics = {
            contract.METRIC_PREDICTIONS: float(summary.predictions),
            contract.METRIC_TICKS: float(summary.ticks),
            contract.METRIC_LATE: float(summary.late),
            contract.METRIC_DUPLICATE: float(summary.duplicate),
            contract.METRIC_REVISED: float(summary.revised),
            contract.METRIC_SKIPPED: float(summary.skipped),
        }
        lag_s = None if summary.newest_ts is None else self._lag_s(summary.newest_ts)
        if lag_s is not None:
            metrics[contract.METRIC_STREAM_LAG] = lag_s
        self._emit(metrics)

    def progress(self, micro_batch_s: float, model_id: str, *, refused: bool) -> None:
        """Publish how long a micro-batch took, its model, and whether the promoted one is not used as it cannot be."""
        metrics = {contract.METRIC_BATCH: micro_batch_s, contract.METRIC_MODEL_REFUSED: float(refused)}
        self._emit({"model_id": model_id, **metrics})

    def alive(self) -> None:
        """Publish no predictions, once in a minute without a micro-batch: an alarm does not see what is missing."""
        if self._clock() - self._told >= _SILENCE:
            self._told = self._clock()
            self._emit({contract.METRIC_PREDICTIONS: 0.0})

    def _lag_s(self, newest_ts: int) -> float | None:
        first = contract.ticks_key(self._run_id, market_day(utc(newest_ts)), newest_ts * 1000, 0)
        prefix = first.rpartition("-")[0]  # the key but for the object's number in the feed
        try:
            times = [info.modified for info in self._market.objects(f"{prefix}-")]
        except StorageError:  # the predictions are stored: their metric is not worth the stream
            return None
        return max(0.0, (self._clock() - max(times)).total_seconds()) if times else None

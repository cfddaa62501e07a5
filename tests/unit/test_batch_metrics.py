"""What a micro-batch publishes: its predictions, and how long its newest tick has waited for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app import contract
from app.clock import fixed_clock
from app.metrics import Metrics
from app.serving.batch_metrics import BatchMetrics
from app.serving.sink import BatchSummary
from app.serving.ticks import TickCounts

NOW = datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)
NOW_S = NOW.timestamp()


def test_a_micro_batch_tells_its_predictions_and_what_became_of_its_ticks() -> None:
    kept: list[Metrics] = []
    summary = BatchSummary(0, 30, 1_700_000_000, 31, TickCounts(4, 3, 2, 1), scoring_s=0.1)
    metrics = BatchMetrics(fixed_clock(NOW), kept.append)
    metrics.add(summary)
    assert not kept  # the micro-batch does not wait for CloudWatch
    metrics.publish()
    ticks = {"Ticks": 31, "LateTicks": 4, "DuplicateTicks": 3, "RevisedTicks": 2, "SkippedTicks": 1}
    assert kept == [{"Predictions": 30, **ticks}]


@pytest.mark.parametrize(("stored_s", "lag_s"), [(NOW_S - 9.5, 9.9), (NOW_S + 2, 0.0)])
def test_one_that_is_done_tells_its_seconds_its_model_and_the_age_of_its_newest_tick(
    stored_s: float, lag_s: float
) -> None:
    """A clock behind that of S3 makes no negative lag."""
    kept: list[Metrics] = []
    offset = {"at": "k", "stored_s": stored_s, "model_id": "m-2", "refused": "it is broken"}
    BatchMetrics(fixed_clock(NOW), kept.append).done(offset, NOW_S, 0.4)
    (told,) = kept
    assert told == {"model_id": "m-2", "StreamLag": pytest.approx(lag_s), "MicroBatch": 0.4, "ModelRefused": 1.0}


def test_a_quiet_stream_says_once_a_minute_that_it_predicts_nothing() -> None:
    kept: list[dict[str, float | str]] = []
    times = iter(NOW + timedelta(seconds=s) for s in (0, 30, 60, 60, 90, 119, 121, 121))

    def emit(metrics: Metrics) -> None:
        kept.append(dict(metrics))

    metrics = BatchMetrics(lambda: next(times), emit)
    for expected in (0, 1, 1, 1, 2):  # at 30, 60, 90, 119 and 121 s
        metrics.alive()
        assert kept == [{contract.METRIC_PREDICTIONS: 0.0}] * expected

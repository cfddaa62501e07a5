"""What a micro-batch publishes: its predictions, and how long its newest tick has lain in S3."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app import contract
from app.clock import fixed_clock
from app.metrics import Metrics
from app.serving.batch_metrics import BatchMetrics
from app.serving.sink import BatchSummary
from tests.fakes import FakeS3, bucket, client_error, make_sessions

(SESSION,) = make_sessions(10)
NOW = datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)
"""FakeS3 writes its first object at 0:00:01, the next at 0:00:02 and so on."""


COUNTED = {"Predictions": 30, "Ticks": 31, "LateTicks": 4, "DuplicateTicks": 3, "RevisedTicks": 2, "SkippedTicks": 1}


def feed(s3: FakeS3, minutes: int, run_id: str = "r") -> None:
    for minute in range(minutes):
        bucket(s3).put(contract.ticks_key(run_id, SESSION.day, (SESSION.open_ts + 60 * minute) * 1000, minute), b"")


def published(s3: FakeS3, newest_minute: int) -> dict[str, float | str]:
    """What is published at NOW for 30 predictions up to a minute of the session."""
    kept: list[dict[str, float | str]] = []

    def emit(metrics: Metrics) -> None:
        kept.append(dict(metrics))

    summary = BatchSummary(0, 30, SESSION.open_ts + 60 * newest_minute, 31, 4, 3, 2, 1, scoring_s=0.1)
    BatchMetrics(bucket(s3), "r", fixed_clock(NOW), emit)(summary)
    (metrics,) = kept
    return metrics


@pytest.mark.parametrize(("minute", "lag_s"), [(0, 9.0), (2, 7.0)])
def test_the_lag_is_the_age_of_the_newest_tick_object_and_not_of_its_bar(minute: int, lag_s: float) -> None:
    s3 = FakeS3()
    feed(s3, 5)
    assert published(s3, minute) == COUNTED | {contract.METRIC_STREAM_LAG: lag_s}


def test_an_object_of_another_run_counts_for_nothing() -> None:
    s3 = FakeS3()
    feed(s3, 1)
    feed(s3, 1, "r-2")
    assert published(s3, 0)[contract.METRIC_STREAM_LAG] == 9.0


def test_a_clock_behind_that_of_s3_makes_no_negative_lag() -> None:
    s3 = FakeS3()
    feed(s3, 12)
    assert published(s3, 11)[contract.METRIC_STREAM_LAG] == 0.0


def test_a_lag_that_cannot_be_found_out_is_left_out() -> None:
    gone = FakeS3()
    refused = FakeS3(error=client_error("AccessDenied", "ListObjectsV2"))
    for s3 in (gone, refused):
        assert published(s3, 0) == COUNTED


def test_a_quiet_stream_says_once_a_minute_that_it_predicts_nothing() -> None:
    kept: list[dict[str, float | str]] = []
    times = iter(NOW + timedelta(seconds=s) for s in (0, 30, 60, 60, 90, 119, 121, 121))

    def emit(metrics: Metrics) -> None:
        kept.append(dict(metrics))

    metrics = BatchMetrics(bucket(FakeS3()), "r", lambda: next(times), emit)
    for expected in (0, 1, 1, 1, 2):  # at 30, 60, 90, 119 and 121 s
        metrics.alive()
        assert kept == [{contract.METRIC_PREDICTIONS: 0.0}] * expected


def test_a_micro_batch_that_is_done_tells_its_seconds_and_its_model() -> None:
    kept: list[Metrics] = []
    metrics = BatchMetrics(bucket(FakeS3()), "r", fixed_clock(NOW), kept.append)
    metrics.progress(0.4, "m-2", refused=True)
    assert kept == [{"model_id": "m-2", contract.METRIC_BATCH: 0.4, contract.METRIC_MODEL_REFUSED: 1.0}]

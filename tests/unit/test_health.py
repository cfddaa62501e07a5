"""What the stream says of itself in S3."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app import contract
from app.errors import ServingError
from app.serving.health import StreamHealth
from app.serving.sink import BatchSummary
from app.serving.ticks import TickCounts
from app.storage import Bucket
from tests.fakes import FakeS3, client_error

NOW = datetime(2026, 3, 24, 15, 0, tzinfo=UTC)
BAR = datetime(2026, 3, 24, 14, 59, tzinfo=UTC)
KEY = contract.stream_health_key("r")


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def health(clock: Clock) -> StreamHealth:
    return StreamHealth(Bucket("market"), "r", clock, "m")


def summary(micro_batch: int, late: int = 0) -> BatchSummary:
    return BatchSummary(micro_batch, 3, int(BAR.timestamp()), 4, TickCounts(late=late, skipped=1), scoring_s=0.1)


def test_it_counts_from_the_stream_s_start_and_tells_the_model_and_the_newest_bar(s3: FakeS3) -> None:
    told = health(Clock())
    told.add(summary(7))
    told.add(summary(8, late=2))
    told.done({"model_id": "m-2", "refused": "model m-3 is not taken up: it is broken"})
    told.write_now_and_then()
    assert Bucket("market").get_json(KEY) == {
        "state": "running",
        "why": "",
        "at": "2026-03-24T15:00:00+00:00",
        "micro_batch": 8,
        "newest_bar": "2026-03-24T14:59:00+00:00",
        "model_id": "m-2",
        "refused": "model m-3 is not taken up: it is broken",
        "predictions": 6,
        "ticks": 8,
        "late": 2,
        "duplicate": 0,
        "revised": 0,
        "skipped": 2,
    }


def test_a_stream_that_is_started_again_counts_on(s3: FakeS3) -> None:
    told = health(Clock())
    told.add(summary(7))
    told.write_now_and_then()
    again = StreamHealth(Bucket("market"), "r", Clock(), "m", resumed=True)
    again.add(summary(8, late=2))
    assert (again.counted["predictions"], again.counted["late"]) == (6, 2)
    Bucket("market").put(KEY, b"{")
    assert not StreamHealth(Bucket("market"), "r", Clock(), "m", resumed=True).counted["predictions"]


def test_it_is_written_every_ten_seconds_and_not_more_often(s3: FakeS3) -> None:
    clock = Clock()
    told = health(clock)
    for second, written in ((0, 1), (1, 1), (9, 1), (10, 2), (19, 2), (20, 3)):
        clock.now = NOW + timedelta(seconds=second)
        told.write_now_and_then()
        assert len(s3.puts) == written


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [(None, "finished", ""), (ServingError("no tick"), "failed", "no tick"), (SystemExit(143), "stopped", "143")],
)
def test_how_the_stream_ended_is_the_last_that_it_says(
    s3: FakeS3, error: BaseException | None, state: str, why: str
) -> None:
    try:
        with health(Clock()):
            if error is not None:
                raise error
    except (ServingError, SystemExit):
        pass
    found = Bucket("market").get_json(KEY)
    assert (found["state"], found["why"]) == (state, why)


def test_an_s3_that_does_not_answer_is_no_reason_to_stop(s3: FakeS3) -> None:
    s3.error = client_error("SlowDown")
    with health(Clock()) as told:
        told.write_now_and_then()

"""The thread on which pages live: it goes on whatever S3 does, and rests when nobody looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from app import contract
from app.errors import StorageError
from app.storage import Bucket
from dashboard.source import Source
from dashboard.watch import Watch
from tests.fakes import FakeS3, client_error


@pytest.fixture
def s3() -> FakeS3:
    found = FakeS3()
    Bucket("m", found).put_json(contract.result_key("run-1", "dataset"), {"rows": 1, "wall_s": 1.0})
    return found


def finding(s3: FakeS3) -> Callable[[], Source]:
    empty = Bucket("e", FakeS3())
    return lambda: Source(Bucket("m", s3), empty, empty, None, "here")


def test_a_page_is_told_what_was_read_last(s3: FakeS3) -> None:
    watch = Watch(finding(s3))
    assert (watch.seen("").snapshot, watch.seen("").trouble) == (None, "")
    watch.look()
    snapshot = watch.seen("").snapshot
    assert snapshot is not None
    assert snapshot.run.run_id == "run-1"


def test_several_pages_may_show_several_runs(s3: FakeS3) -> None:
    watch = Watch(finding(s3))
    for run_id in ("", "run-1", "other"):
        watch.seen(run_id)
    watch.look()
    shown = [watch.seen(run_id).snapshot for run_id in ("", "run-1", "other")]
    assert [snapshot and snapshot.run.run_id for snapshot in shown] == ["run-1", "run-1", "other"]


def test_an_s3_that_does_not_answer_is_a_sentence_over_what_was_read_before(s3: FakeS3) -> None:
    watch = Watch(finding(s3))
    watch.seen("")
    watch.look()
    before = watch.seen("").snapshot
    s3.error = client_error("SlowDown", "ListObjectsV2")
    watch.look()
    assert watch.seen("").snapshot is before
    assert "SlowDown" in watch.seen("").trouble
    s3.error = None
    watch.look()
    assert watch.seen("").trouble == ""
    assert watch.seen("").snapshot is not before


def test_where_to_read_is_asked_again_after_a_failure(s3: FakeS3) -> None:
    asked: list[int] = []

    def find() -> Source:
        asked.append(len(asked))
        if len(asked) == 1:
            raise StorageError("nothing is there yet")
        return finding(s3)()

    watch = Watch(find)
    watch.seen("")
    watch.look()
    assert watch.seen("").trouble == "nothing is there yet"
    watch.look()
    watch.look()
    assert watch.seen("").trouble == ""
    assert asked == [0, 1]


def test_what_stands_in_is_read_until_there_is_something_better(s3: FakeS3) -> None:
    better = finding(s3)()
    found = [replace(better, name="last run", stands_in=True)] * 3
    watch = Watch(lambda: found.pop(0) if found else better)
    watch.seen("")
    for name in ("last run", "last run", "last run", better.name, better.name):
        watch.look()
        assert watch._reader is not None
        assert watch._reader.source.name == name


def test_a_run_that_no_page_shows_any_more_is_not_read(s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(finding(s3))
    now_s = 0.0
    monkeypatch.setattr("dashboard.watch.time.monotonic", lambda: now_s)
    watch.seen("run-1")
    now_s = 30.0
    watch.seen("")
    watch.look()
    assert watch.seen("").snapshot is not None
    assert watch.seen("run-1").snapshot is None

"""The Spark source over tick objects: places are keys, and a micro-batch is what lies between two of them."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from app import contract
from app.serving.stream_reader import SCHEMA, Part
from app.serving.tick_source import TickReader, TickSource
from app.storage import Bucket
from app.tables import put_table
from tests.fakes import FakeS3, make_bars, make_sessions

(SESSION,) = make_sessions(10)
FIRST_STORED_S = datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC).timestamp()  # the pointer is stored before
PREFIX = contract.ticks_prefix("r")
KEYS = [contract.ticks_key("r", SESSION.day, (SESSION.open_ts + 60 * i) * 1000, i) for i in range(10)]


@pytest.fixture(autouse=True)
def _pointer(s3: FakeS3) -> None:
    Bucket("models").put_json(contract.CURRENT_MODEL_KEY, {"model_id": "m"})


def options(tasks: int = 2, limit: int = 60, offset: str = "") -> dict[str, str]:
    return {
        "bucket": "fake",
        "prefix": PREFIX,
        "tasks": str(tasks),
        "limit": str(limit),
        "models": "models",
        "model_id": "m",
        "offset": offset,
    }


def reader(**given: Any) -> TickReader:
    return TickReader(options(**given))


def offset(key: str) -> dict[str, Any]:
    """Up to this key, each object being stored a second after the one before, see FakeS3."""
    stored_s = 0.0 if not key else FIRST_STORED_S + KEYS.index(key)
    return {"at": key, "stored_s": stored_s, "model_id": "m", "refused": ""}


def feed(minutes: range) -> None:
    for i in minutes:
        put_table(Bucket("fake"), KEYS[i], make_bars("A", SESSION, [i]))


def keys_of(parts: list[Any]) -> list[list[str]]:
    return [[key for _, key in part.what] for part in parts]


def test_the_newest_offset_is_the_last_key_of_this_run(s3: FakeS3) -> None:
    source = reader()
    assert source.latestOffset() == source.initialOffset() == offset("")
    feed(range(3))
    assert source.latestOffset() == offset(KEYS[2])
    assert source.latestOffset() == offset(KEYS[2])
    feed(range(3, 5))
    Bucket("fake").put("ticks/zzz/later", b"")
    assert source.latestOffset() == offset(KEYS[4])


def test_a_micro_batch_holds_no_more_objects_than_the_limit(s3: FakeS3) -> None:
    feed(range(7))
    source = reader(limit=3)
    assert [source.latestOffset()["at"] for _ in range(4)] == [KEYS[2], KEYS[5], KEYS[6], KEYS[6]]


def test_a_restarted_source_goes_on_from_the_offset_that_was_planned(s3: FakeS3) -> None:
    feed(range(7))
    assert reader(limit=3, offset=json.dumps(offset(KEYS[3]))).latestOffset() == offset(KEYS[6])
    assert reader(limit=3, offset=json.dumps(offset(KEYS[6]))).latestOffset() == offset(KEYS[6])


def test_a_micro_batch_is_the_keys_after_its_start_up_to_its_end(s3: FakeS3) -> None:
    feed(range(10))
    parts = keys_of(reader(tasks=3).partitions(offset(KEYS[1]), offset(KEYS[8])))
    assert sorted(key for part in parts for key in part) == KEYS[2:9]
    assert [len(part) for part in parts] == [3, 2, 2]


def test_there_are_no_more_tasks_than_objects(s3: FakeS3) -> None:
    feed(range(10))
    assert keys_of(reader(tasks=8).partitions(offset(""), offset(KEYS[1]))) == [[KEYS[0]], [KEYS[1]]]
    assert reader().partitions(offset(KEYS[9]), offset(KEYS[9])) == []


def test_a_part_is_read_in_the_streams_columns_with_times_in_seconds_and_the_model_of_its_micro_batch(
    s3: FakeS3,
) -> None:
    feed(range(3))
    batches = list(reader().read(Part(((0, KEYS[0]), (2, KEYS[2])), "m-2")))
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert [row["ts"] for row in rows] == [SESSION.open_ts, SESSION.open_ts + 120]
    bar = make_bars("A", SESSION, [2]).to_pylist()[0]
    told = {"ts": rows[1]["ts"], "market_return": rows[1]["market_return"], "poll": 2, "model_id": "m-2"}
    assert rows[1] == bar | told
    assert [f"{f.name} {f.type}" for f in batches[0].schema] == SCHEMA.replace("long", "int64").split(", ")


def test_one_object_is_one_poll_of_the_market(s3: FakeS3) -> None:
    both = pa.concat_tables([make_bars(ticker, SESSION, [4]) for ticker in "AB"])
    put_table(Bucket("fake"), KEYS[4], both)
    put_table(Bucket("fake"), KEYS[5], make_bars("C", SESSION, [4]))  # the same minute's bar, a poll later
    part = Part(((0, KEYS[4]), (1, KEYS[5])), "m")
    rows = [row for batch in reader().read(part) for row in batch.to_pylist()]
    moves = [math.log(row["close"] / row["open"]) for row in rows]
    assert [(row["ticker"], row["poll"]) for row in rows] == [("A", 0), ("B", 0), ("C", 1)]
    together = (moves[0] + moves[1]) / 2
    assert [row["market_return"] for row in rows] == pytest.approx([together, together, moves[2]])


def test_spark_gets_a_reader_with_the_options_of_the_query(s3: FakeS3) -> None:
    source = TickSource(options())
    feed(range(1))
    made = source.streamReader(None)
    assert isinstance(made, TickReader)
    assert made.latestOffset() == offset(KEYS[0])

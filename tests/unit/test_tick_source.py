"""The Spark source over tick objects: offsets are keys, and a micro-batch is what lies between two of them."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from pyspark.sql.datasource import InputPartition

from app import contract
from app.serving.tick_source import SCHEMA, TickKeys, TickReader, TickSource
from app.storage import Bucket
from app.tables import put_table
from tests.fakes import FakeS3, make_bars, make_sessions

(SESSION,) = make_sessions(10)
PREFIX = contract.ticks_prefix("r")
KEYS = [contract.ticks_key("r", SESSION.day, (SESSION.open_ts + 60 * i) * 1000, i) for i in range(10)]


def reader(tasks: int = 2) -> TickReader:
    return TickReader({"bucket": "fake", "prefix": PREFIX, "tasks": str(tasks)})


def feed(minutes: range) -> None:
    for i in minutes:
        put_table(Bucket("fake"), KEYS[i], make_bars("A", SESSION, [i]))


def keys_of(parts: list[InputPartition]) -> list[tuple[str, ...]]:
    return [part.keys for part in parts if isinstance(part, TickKeys)]


def test_the_newest_offset_is_the_last_key_of_this_run(s3: FakeS3) -> None:
    source = reader()
    assert source.latestOffset() == source.initialOffset() == {"key": ""}
    feed(range(3))
    Bucket("fake").put("ticks/zzz/later", b"")
    assert source.latestOffset() == {"key": KEYS[2]}
    assert source.latestOffset() == {"key": KEYS[2]}
    feed(range(3, 5))
    assert source.latestOffset() == {"key": KEYS[4]}


def test_a_restarted_source_finds_the_newest_key_again(s3: FakeS3) -> None:
    feed(range(4))
    assert reader().latestOffset() == {"key": KEYS[3]}


def test_a_micro_batch_is_the_keys_after_its_start_up_to_its_end(s3: FakeS3) -> None:
    feed(range(10))
    parts = keys_of(reader(tasks=3).partitions({"key": KEYS[1]}, {"key": KEYS[8]}))
    assert sorted(key for part in parts for key in part) == KEYS[2:9]
    assert [len(part) for part in parts] == [3, 2, 2]


def test_there_are_no_more_tasks_than_objects(s3: FakeS3) -> None:
    feed(range(10))
    assert keys_of(reader(tasks=8).partitions({"key": ""}, {"key": KEYS[1]})) == [(KEYS[0],), (KEYS[1],)]
    assert reader().partitions({"key": KEYS[9]}, {"key": KEYS[9]}) == []


def test_a_part_is_read_in_the_streams_columns_with_times_in_seconds(s3: FakeS3) -> None:
    feed(range(3))
    batches = list(reader().read(TickKeys((KEYS[0], KEYS[2]))))
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert [row["ts"] for row in rows] == [SESSION.open_ts, SESSION.open_ts + 120]
    bar = make_bars("A", SESSION, [2]).to_pylist()[0]
    assert rows[1] == bar | {"ts": rows[1]["ts"], "market_return": rows[1]["market_return"]}
    assert [f"{f.name} {f.type}" for f in batches[0].schema] == SCHEMA.replace("long", "int64").split(", ")


def test_one_object_is_one_poll_of_the_market(s3: FakeS3) -> None:
    both = pa.concat_tables([make_bars(ticker, SESSION, [4]) for ticker in "AB"])
    put_table(Bucket("fake"), KEYS[4], both)
    put_table(Bucket("fake"), KEYS[5], make_bars("C", SESSION, [4]))  # the same minute's bar, a poll later
    rows = [row for batch in reader().read(TickKeys((KEYS[4], KEYS[5]))) for row in batch.to_pylist()]
    moves = [math.log(row["close"] / row["open"]) for row in rows]
    assert [row["ticker"] for row in rows] == ["A", "B", "C"]
    together = (moves[0] + moves[1]) / 2
    assert [row["market_return"] for row in rows] == pytest.approx([together, together, moves[2]])


def test_spark_gets_a_reader_with_the_options_of_the_query(s3: FakeS3) -> None:
    source = TickSource({"bucket": "fake", "prefix": PREFIX, "tasks": "2"})
    feed(range(1))
    made = source.streamReader(None)
    assert isinstance(made, TickReader)
    assert made.latestOffset() == {"key": KEYS[0]}

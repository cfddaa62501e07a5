"""Ticks of a Kinesis stream: every record once and each ticker's in order, through limits, restarts and resharding."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from app import contract
from app.errors import ServingError
from app.serving.kinesis import Cursor, KinesisStream, connect_kinesis, put_ticks
from app.serving.kinesis_source import KinesisReader, KinesisTickSource
from app.serving.sources import Begin, KinesisSource, S3Source, make_source
from app.serving.stream_bucket import stream_bucket
from app.serving.stream_reader import SCHEMA, Part
from app.serving.tick_records import columns_from, record_of
from app.serving.ticks import columns_of, screen, ticks_from_table
from app.settings import ServingSettings
from app.storage import Bucket
from tests.fakes import FakeS3, bucket, client_error, make_bars, make_sessions
from tests.kinesis import FakeKinesis, arrived

(SESSION,) = make_sessions(30)
TICKERS = tuple("ABCDEFGH")


def clients(monkeypatch: pytest.MonkeyPatch, kinesis: FakeKinesis) -> None:
    """Every client that is made talks to these; the current model is "m"."""
    s3 = FakeS3()
    stream_bucket.cache_clear()
    monkeypatch.setattr(boto3, "client", lambda service, **options: kinesis if service == "kinesis" else s3)
    Bucket("models").put_json(contract.CURRENT_MODEL_KEY, {"model_id": "m"})


@pytest.fixture
def kinesis(monkeypatch: pytest.MonkeyPatch) -> FakeKinesis:
    fake = FakeKinesis()
    clients(monkeypatch, fake)
    return fake


def reader(tasks: int = 2, limit: int = 1000, offset: str = "") -> KinesisReader:
    options = {"stream": "ticks", "tasks": str(tasks), "limit": str(limit), "offset": offset, "look_s": "0"}
    return KinesisReader(options | {"models": "models", "model_id": "m"})


def tick(ticker: str, minute: int) -> dict[str, Any]:
    """A row of the stream's columns that says which one it is by its time."""
    prices = dict.fromkeys(("open", "high", "low", "close"), 100.0)
    return {"ticker": ticker, "ts": SESSION.open_ts + 60 * minute, **prices, "volume": 1.0, "market_return": 0.0}


def put(kinesis: FakeKinesis, *ticks: tuple[str, int]) -> list[str]:
    """Put ticks by ticker and minute; returns their sequence numbers."""
    return [kinesis.put(ticker, record_of(tick(ticker, minute)))["SequenceNumber"] for ticker, minute in ticks]


def read_rows(source: KinesisReader, start: Any, end: Any) -> list[dict[str, Any]]:
    """What the tasks of the micro-batch between two offsets read."""
    parts = source.partitions(start, end)
    return [row for part in parts for batch in source.read(part) for row in batch.to_pylist()]


def keys(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """The ticks by ticker and minute, ordered as the stream orders those of one ticker: by poll."""
    ordered = sorted(rows, key=lambda row: (row["ticker"], row["poll"]))
    return [(row["ticker"], (row["ts"] - SESSION.open_ts) // 60) for row in ordered]


# --- places -------------------------------------------------------------------------------------


def test_a_place_is_the_last_sequence_number_of_each_shard_that_has_records(kinesis: FakeKinesis) -> None:
    source = reader()
    assert (
        source.initialOffset() == source.latestOffset() == {"at": {}, "stored_s": 0.0, "model_id": "m", "refused": ""}
    )
    numbers = put(kinesis, ("A", 0), ("B", 0))
    assert numbers == ["97", "98"]
    assert source.latestOffset()["at"] == {"shardId-000000000000": "98"}
    assert source.latestOffset()["stored_s"] == arrived(98).timestamp()
    put(kinesis, *[("A", i) for i in range(1, 5)])  # from 99 to 102: as text it would be a step back
    assert source.latestOffset()["at"] == source.latestOffset()["at"] == {"shardId-000000000000": "102"}


def test_a_micro_batch_holds_no_more_records_than_the_limit_shared_among_shards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeKinesis(shards=2)
    clients(monkeypatch, fake)
    put(fake, *[(ticker, i) for i in range(10) for ticker in TICKERS])
    source, start, sizes = reader(limit=12), reader().initialOffset(), []
    while (end := source.latestOffset()) != start:
        sizes.append({shard: int(at) for shard, at in end["at"].items()})
        assert 1 <= len(read_rows(source, start, end)) <= 12
        start = end
    assert len(sizes[0]) == 2


def test_a_shard_gets_at_least_one_record_of_a_small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeKinesis(shards=4)
    clients(monkeypatch, fake)
    put(fake, *[(ticker, i) for i in range(3) for ticker in "ABCDEFGHIJKLMNOP"])
    assert len(reader(limit=1).latestOffset()["at"]) == 4


def test_the_stream_is_looked_at_no_more_often_than_a_shard_answers(kinesis: FakeKinesis) -> None:
    source = KinesisReader(
        {"stream": "ticks", "tasks": "1", "limit": "9", "offset": "", "models": "models", "model_id": "m"}
    )
    source.latestOffset()
    put(kinesis, ("A", 0))
    before = list(kinesis.calls)
    assert source.latestOffset()["at"] == {}
    assert kinesis.calls == before


def test_a_look_goes_on_behind_empty_pages_where_the_one_before_stopped(kinesis: FakeKinesis) -> None:
    put(kinesis, ("A", 0))
    kinesis.empty_pages = 25
    source = reader()
    assert [bool(source.latestOffset()["at"]) for _ in range(3)] == [False, False, True]
    assert kinesis.calls.count("GetShardIterator") == 1


def test_an_iterator_that_expired_is_made_anew_from_the_place(kinesis: FakeKinesis) -> None:
    source = reader()
    put(kinesis, ("A", 0))
    start = source.latestOffset()
    kinesis.expire()
    put(kinesis, ("A", 1))
    assert keys(read_rows(source, start, source.latestOffset())) == [("A", 1)]


def test_a_restarted_source_goes_on_from_the_offset_that_was_planned(kinesis: FakeKinesis) -> None:
    put(kinesis, *[("A", i) for i in range(7)])
    first = reader(limit=3)
    planned = json.dumps(first.latestOffset())
    again = reader(limit=3, offset=planned)
    end = again.latestOffset()
    assert keys(read_rows(again, json.loads(planned), end)) == [("A", 3), ("A", 4), ("A", 5)]
    assert json.loads(json.dumps(end)) == end


# --- reading ------------------------------------------------------------------------------------


def test_a_range_is_read_again_to_the_record_whatever_came_after_it(kinesis: FakeKinesis) -> None:
    source = reader()
    put(kinesis, ("A", 0), ("B", 0))
    start = source.latestOffset()
    put(kinesis, ("A", 1), ("B", 1), ("A", 2))
    end = source.latestOffset()
    once = read_rows(source, start, end)
    put(kinesis, ("A", 3), ("B", 2))
    assert read_rows(reader(), start, end) == once
    assert keys(once) == [("A", 1), ("A", 2), ("B", 1)]


def test_ranges_are_dealt_to_no_more_tasks_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeKinesis(shards=4)
    clients(monkeypatch, fake)
    put(fake, *[(ticker, 0) for ticker in "ABCDEFGHIJKLMNOP"])
    source = reader(tasks=3)
    end = source.latestOffset()
    assert [len(part.what) for part in source.partitions(source.initialOffset(), end)] == [2, 1, 1]  # type: ignore[attr-defined]
    assert source.partitions(end, end) == []


def test_many_pages_and_empty_ones_are_one_range(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeKinesis(page=2)
    clients(monkeypatch, fake)
    put(fake, *[("A", i) for i in range(7)])
    source = reader()
    end = source.latestOffset()
    fake.empty_pages = 3
    rows = read_rows(source, source.initialOffset(), end)
    assert [row["poll"] for row in rows] == list(range(7))
    assert keys(rows) == [("A", i) for i in range(7)]


def test_rows_have_the_streams_columns_and_the_model_of_their_micro_batch(kinesis: FakeKinesis) -> None:
    bars = make_bars("A", SESSION, [3])
    put_ticks(kinesis, "ticks", columns_of(bars))
    source = KinesisTickSource({**reader_options(), "model_id": "m"}).streamReader(None)
    assert isinstance(source, KinesisReader)
    part = Part((("shardId-000000000000", "", "97"),), "m-2")
    (batch,) = source.read(part)
    assert [f"{f.name} {f.type}" for f in batch.schema] == SCHEMA.replace("long", "int64").split(", ")
    assert batch.to_pylist() == [columns_of(bars).to_pylist()[0] | {"poll": 0, "model_id": "m-2"}]


def reader_options() -> dict[str, str]:
    return {"stream": "ticks", "tasks": "1", "limit": "9", "offset": "", "models": "models", "model_id": "m"}


def test_records_that_the_stream_no_longer_holds_are_told(kinesis: FakeKinesis) -> None:
    put(kinesis, ("A", 0), ("A", 1))
    source = reader()
    end = source.latestOffset()
    kinesis.shards["shardId-000000000000"].records.clear()
    with pytest.raises(ServingError, match="no longer holds record 98 of shardId-000000000000: its retention"):
        read_rows(source, source.initialOffset(), end)


def test_a_shard_that_vanished_before_its_end_is_told(kinesis: FakeKinesis) -> None:
    put(kinesis, ("A", 0))
    offset = json.dumps(reader().latestOffset())
    kinesis.split("shardId-000000000000")
    del kinesis.shards["shardId-000000000000"]
    with pytest.raises(ServingError, match="no longer lists shardId-000000000000, and it is not known to be read"):
        reader(offset=offset).latestOffset()


def test_a_shard_that_vanished_after_its_end_was_read_is_not_missed(kinesis: FakeKinesis) -> None:
    put(kinesis, ("A", 0))
    kinesis.split("shardId-000000000000")
    source = reader()
    start = [source.latestOffset() for _ in range(3)][-1]
    del kinesis.shards["shardId-000000000000"]
    put(kinesis, ("A", 1))
    assert keys(read_rows(source, start, source.latestOffset())) == [("A", 1)]


# --- resharding ---------------------------------------------------------------------------------


def drain(source: KinesisReader, start: Any) -> tuple[list[tuple[str, int]], Any]:
    """All that is there, micro-batch after micro-batch, and where that ends."""
    read: list[tuple[str, int]] = []
    for _ in range(3):  # a parent's end is noticed by a look that finds nothing more in it
        while (end := source.latestOffset()) != start:
            read += keys(read_rows(source, start, end))
            start = end
    return read, start


def test_children_begin_when_their_parent_has_been_read_to_its_end(kinesis: FakeKinesis) -> None:
    parent = "shardId-000000000000"
    put(kinesis, *[(ticker, 0) for ticker in TICKERS])
    children = set(kinesis.split(parent))
    put(kinesis, *[(ticker, 1) for ticker in TICKERS])
    source = reader(limit=5)
    looks = [set(source.latestOffset()["at"]) for _ in range(3)]
    assert looks[:2] == [{parent}, {parent}]
    assert looks[2] == {parent, *children}


def test_a_child_of_two_waits_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeKinesis(shards=2)
    clients(monkeypatch, fake)
    parents = set(fake.shards)
    put(fake, *[(ticker, 0) for ticker in TICKERS])
    child = fake.merge(*sorted(parents))
    put(fake, *[(ticker, 1) for ticker in TICKERS])
    source, start, seen = reader(limit=2), reader().initialOffset(), []
    while (end := source.latestOffset()) != start:
        rows = keys(read_rows(source, start, end))
        seen.append({minute for _, minute in rows})
        start = end
    assert seen == sorted(seen, key=max)
    assert {0, 1} not in seen
    assert set(start["at"]) == {*parents, child}


def test_a_parent_without_records_holds_up_nothing(kinesis: FakeKinesis) -> None:
    child, _ = kinesis.split("shardId-000000000000")
    kinesis.split(child)
    put(kinesis, *[(ticker, 0) for ticker in TICKERS])
    source = reader()
    assert drain(source, source.initialOffset())[0] == [(ticker, 0) for ticker in TICKERS]


@given(
    st.lists(st.sampled_from(["put", "look", "split", "merge", "restart", "forget"]), max_size=40), st.integers(1, 9)
)
def test_whatever_is_split_merged_and_restarted_each_record_is_read_once_and_in_its_tickers_order(
    steps: list[str], limit: int
) -> None:
    fake, read, minute = FakeKinesis(shards=2), list[tuple[str, int]](), 0
    with pytest.MonkeyPatch.context() as patch:
        clients(patch, fake)
        source = reader(limit=limit)
        start: Any = source.initialOffset()
        for step in [*steps, "look"]:
            opened = sorted((shard.first, name) for name, shard in fake.shards.items() if not shard.closed)
            if step == "put":
                put(fake, *[(ticker, minute) for ticker in TICKERS])
                minute += 1
            elif step == "split":
                fake.split(opened[0][1])
            elif step == "merge" and len(opened) > 1:
                fake.merge(opened[0][1], opened[1][1])
            elif step == "forget":  # it ends before Spark has written down what it planned
                source.latestOffset()
                source = reader(limit=limit, offset=json.dumps(start))
            elif step in ("look", "restart"):
                end = source.latestOffset()
                if step == "restart":  # the micro-batch that was planned is run by another process
                    source = reader(limit=limit, offset=json.dumps(end))
                read += keys(read_rows(source, start, end))
                start = end
        read += drain(source, start)[0]
    by_ticker = {ticker: [at for name, at in read if name == ticker] for ticker in TICKERS}
    assert by_ticker == {ticker: list(range(minute)) for ticker in TICKERS}


# --- records ------------------------------------------------------------------------------------


def test_numbers_are_read_again_to_the_last_bit() -> None:
    columns = columns_of(pa.concat_tables([make_bars(ticker, SESSION) for ticker in "AB"]))
    again = columns_from([record_of(row) for row in columns.to_pylist()], 0)
    assert again.drop_columns("poll").equals(columns.drop_columns("poll"))
    assert again["poll"].to_pylist() == list(range(60))


GOOD = tick("A", 0)
WRONG: tuple[dict[str, Any], ...] = (
    {"close": "100"},
    {"close": None},
    {"close": True},
    {"close": 10**400},
    {"close": {}},
    {"ts": 1.5},
    {"ts": "0"},
    {"ts": 2**70},
    {"ticker": ""},
    {"ticker": 7},
    {"ticker": "A" * 33},
    {"ticker": "\ud800"},
)
MALFORMED = [
    b"",
    b"\xf3\x89\x9a\xc2 aggregated by a library",
    b"[]",
    b'"text"',
    b"{",
    b"[" * 100_000,
    *(json.dumps({name: value for name, value in GOOD.items() if name != left_out}).encode() for left_out in GOOD),
    *(json.dumps(GOOD | change).encode() for change in WRONG),
    b'{"ticker": "A", "ts": ' + b"1" * 5000 + b"}",
]


@pytest.mark.parametrize("record", MALFORMED)
def test_a_record_that_is_no_tick_is_counted_as_skipped(record: bytes) -> None:
    columns = columns_from([record_of(GOOD), record, record_of(tick("A", 1))], 0)
    ticks = ticks_from_table(columns)
    chosen, _, counts = screen(ticks, np.zeros(3, np.int64), [SESSION], np.array([-1]), 5)
    assert chosen.tolist() == [0, 2]
    assert (counts.skipped, counts.duplicate, counts.revised) == (1, 0, 0)


def test_a_record_may_hold_more_than_the_columns() -> None:
    record = json.dumps(GOOD | {"exchange": "N", "volume": 7}).encode()
    assert columns_from([record], 4).to_pylist() == [GOOD | {"volume": 7.0, "poll": 4}]


def test_a_price_that_is_none_is_put_and_skipped_later(kinesis: FakeKinesis) -> None:
    put_ticks(kinesis, "ticks", pa.table({name: [value] for name, value in (GOOD | {"close": math.nan}).items()}))
    ((_, record),) = kinesis.shards["shardId-000000000000"].records
    assert json.loads(record)["close"] is None
    assert math.isnan(columns_from([record], 0)["close"][0].as_py())


def test_no_records_are_no_rows() -> None:
    assert columns_from([], 0).num_rows == 0
    assert columns_from([], 0).column_names == columns_from([record_of(GOOD)], 0).column_names


# --- putting ------------------------------------------------------------------------------------


def test_the_last_numbers_of_what_was_put_are_told_by_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeKinesis(shards=2)
    clients(monkeypatch, fake)
    bars = pa.concat_tables([make_bars(ticker, SESSION, [0]) for ticker in TICKERS])
    last = put_ticks(fake, "ticks", columns_of(bars))
    assert last == {name: str(shard.records[-1][0]) for name, shard in fake.shards.items()}
    assert reader().latestOffset()["at"] == last


def test_a_request_holds_one_record_of_a_ticker_and_no_more_than_kinesis_takes(kinesis: FakeKinesis) -> None:
    tickers = [f"T{i:03d}" for i in range(501)]
    put_ticks(kinesis, "ticks", columns_of(pa.concat_tables([make_bars(t, SESSION, [0]) for t in tickers])))
    put_ticks(kinesis, "ticks", columns_of(make_bars("A", SESSION, [0, 1, 2])))
    assert [len(request) for request in kinesis.requests] == [500, 1, 1, 1, 1]


def test_what_is_refused_is_put_again_before_the_tickers_next_record(kinesis: FakeKinesis) -> None:
    slow = "ProvisionedThroughputExceededException"
    kinesis.refusals = [slow, "", slow, ""]
    slept: list[float] = []
    bars = pa.concat_tables([make_bars(ticker, SESSION, [0, 1]) for ticker in "AB"])
    last = put_ticks(kinesis, "ticks", columns_of(bars), slept.append)
    assert kinesis.requests == [["A", "B"], ["A"], ["A"], ["A", "B"]]
    assert slept == pytest.approx([0.1, 0.2])
    assert last == {"shardId-000000000000": "100"}
    rows = read_rows(reader(), reader().initialOffset(), reader().latestOffset())
    assert keys(rows) == [("A", 0), ("A", 1), ("B", 0), ("B", 1)]


def test_a_stream_that_takes_nothing_is_told_in_one_sentence(kinesis: FakeKinesis) -> None:
    kinesis.refusals = ["InternalFailure"] * 100
    with pytest.raises(ServingError, match=r"did not take 1 records in 12 tries \(InternalFailure\): give it more"):
        put_ticks(kinesis, "ticks", columns_of(make_bars("A", SESSION, [0])), lambda s: None)


# --- errors -------------------------------------------------------------------------------------


def test_failures_are_told_in_one_sentence(kinesis: FakeKinesis, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(exc: Exception) -> Any:
        def call(**given: Any) -> Any:
            raise exc

        return call

    cursor = Cursor(KinesisStream("ticks"), "shardId-000000000000", "")
    monkeypatch.setattr(kinesis, "get_records", fail(client_error("AccessDeniedException", "GetRecords")))
    with pytest.raises(ServingError, match="Kinesis refused GetRecords on stream ticks: AccessDeniedException: as"):
        cursor.read(1)
    monkeypatch.setattr(kinesis, "get_records", fail(EndpointConnectionError(endpoint_url="http://x")))
    with pytest.raises(ServingError, match=r"Kinesis at http://x does not answer \(EndpointConnectionError\)"):
        cursor.read(1)


def test_a_client_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nowhere")
    with pytest.raises(ServingError, match="no Kinesis client can be made"):
        connect_kinesis()


# --- the source, as the driver sees it ------------------------------------------------------------


def test_the_source_ends_where_the_feed_says_in_every_shard() -> None:
    begin = Begin("r", "models", "m", "")
    settings, market = ServingSettings(source="kinesis", kinesis_stream="ticks", micro_batch_limit=2), bucket()
    source = make_source(begin, settings, market)
    assert isinstance(source, KinesisSource)
    assert (source.name, source.where) == ("stockflow_kinesis", "Kinesis stream ticks")
    assert (source.options["stream"], source.options["limit"]) == ("ticks", "1000")
    assert source.end() is None
    end = {"s-0": "100", "s-1": "99"}
    market.put_json(contract.feed_end_key("r"), {"last_sequence_numbers": end, "ticks": 7})
    assert source.end() == end
    assert source.reached({"s-0": "100", "s-1": "101", "s-2": "1"}, end)
    assert not source.reached({"s-0": "99", "s-1": "99"}, end)  # as text 99 would be more than 100
    assert not source.reached({"s-0": "100"}, end)
    assert isinstance(make_source(begin, ServingSettings(), market), S3Source)


# --- against moto: the calls as AWS spells them ---------------------------------------------------


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A stream of two shards and a model bucket, behind real clients."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    stream_bucket.cache_clear()
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="models")
        Bucket("models").put_json(contract.CURRENT_MODEL_KEY, {"model_id": "m"})
        client = connect_kinesis()
        client.create_stream(StreamName="ticks", ShardCount=2)
        yield client


def test_what_is_put_is_read_by_ranges_and_again_after_a_restart(stream: Any) -> None:
    polls = [columns_of(pa.concat_tables([make_bars(t, SESSION, [i]) for t in TICKERS])) for i in range(5)]
    last = {}
    for poll in polls:
        last = put_ticks(stream, "ticks", poll)
    stream.put_record(StreamName="ticks", PartitionKey="A", Data=b"no tick")
    source, start, rows = reader(limit=11), reader().initialOffset(), []
    while (end := source.latestOffset()) != start:
        rows += read_rows(source, start, end)
        source, start = reader(limit=11, offset=json.dumps(end)), end
    ticks = [row for row in rows if row["ticker"]]
    wanted = [row for poll in polls for row in poll.to_pylist()]
    assert len(rows) == 41
    assert sorted((row["ticker"], row["ts"], row["close"], row["market_return"]) for row in ticks) == sorted(
        (row["ticker"], row["ts"], row["close"], row["market_return"]) for row in wanted
    )
    assert all(int(start["at"][shard]) >= int(number) for shard, number in last.items())


def test_shards_are_known_by_parents_and_whether_they_are_closed(stream: Any) -> None:
    first, second = (shard.shard_id for shard in KinesisStream("ticks").shards())
    stream.merge_shards(StreamName="ticks", ShardToMerge=first, AdjacentShardToMerge=second)
    merged = KinesisStream("ticks").shards()[-1]
    assert (set(merged.parents), merged.closed) == ({first, second}, False)
    stream.split_shard(StreamName="ticks", ShardToSplit=merged.shard_id, NewStartingHashKey=str(2**127))
    shards = KinesisStream("ticks").shards()
    assert [shard.closed for shard in shards] == [True, True, True, False, False]
    assert [shard.parents for shard in shards[-2:]] == [(merged.shard_id,)] * 2


def test_an_unknown_stream_is_told_with_the_setting_that_names_it(stream: Any) -> None:
    unknown = KinesisStream("elsewhere")
    sentence = "there is no Kinesis stream elsewhere in this account and region.*correct serving.kinesis_stream"
    with pytest.raises(ServingError, match=sentence):
        unknown.shards()
    with pytest.raises(ServingError, match=sentence):
        put_ticks(stream, "elsewhere", columns_of(make_bars("A", SESSION, [0])))
    with pytest.raises(ServingError, match=sentence):
        Cursor(unknown, "shardId-000000000000", "").read(1)

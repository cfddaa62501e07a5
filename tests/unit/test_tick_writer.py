"""Polls written as objects or as records: one way for all feeds."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from app import contract
from app.errors import ServingError
from app.ingest.bars import empty_bars
from app.serving.tick_writer import TickObjects, TickRecords, make_writer
from app.serving.ticks import columns_of
from app.settings import ServingSettings
from tests.fakes import bucket, make_bars, make_sessions

(SESSION,) = make_sessions(5)
POLLS = [pa.concat_tables([make_bars(ticker, SESSION, [minute]) for ticker in "AB"]) for minute in range(3)]


class FakeKinesis:
    """One call of boto3's client; a shard for each ticker."""

    meta = SimpleNamespace(endpoint_url="http://x")

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def put_records(self, **call: Any) -> dict[str, Any]:
        """Keep them all."""
        assert call["StreamName"] == "ticks"
        first = len(self.records)
        self.records += call["Records"]
        return {
            "Records": [
                {"ShardId": record["PartitionKey"], "SequenceNumber": str(first + i)}
                for i, record in enumerate(call["Records"])
            ]
        }


def test_the_source_says_where_a_feed_writes() -> None:
    market = bucket()
    assert isinstance(make_writer(ServingSettings(), market, "r", SESSION.day), TickObjects)


def test_a_poll_is_a_record_for_each_bar_with_the_market_s_return_of_the_poll() -> None:
    market, kinesis = bucket(), FakeKinesis()
    writer = TickRecords(market, "ticks", "r", SESSION.day, kinesis)
    assert writer.resume().equals(empty_bars())
    for poll in POLLS:
        writer.put(poll)
    writer.put(POLLS[2], revised=2)
    told = [json.loads(record["Data"]) for record in kinesis.records]
    first = columns_of(POLLS[0]).drop_columns(["poll"]).to_pylist()
    assert told[:2] == first
    end = writer.end(missed={})
    assert end == market.get_json(contract.feed_end_key("r"))
    assert end == {
        "last_sequence_numbers": {"A": "6", "B": "7"},
        "objects": 4,
        "ticks": 6,
        "revised": 2,
        "day": SESSION.day.isoformat(),
        "missed": {},
    }


def test_what_was_written_before_is_counted_and_gone_on_after() -> None:
    market = bucket()
    for polls in (POLLS[:2], POLLS[2:]):
        writer = TickObjects(market, "r", SESSION.day)
        known = writer.resume()
        for poll in polls:
            writer.put(poll)
    assert len(known) == 4
    end = writer.end()
    assert (end["objects"], end["ticks"], end["revised"]) == (3, 6, 0)
    assert end["last_key"] == contract.ticks_key("r", SESSION.day, (SESSION.open_ts + 120) * 1000, 2)
    assert contract.ticks_place(end["last_key"]) == ((SESSION.open_ts + 120) * 1000, 2)


def test_of_two_feeds_of_the_running_market_at_once_one_gives_way() -> None:
    market = bucket()
    one, other = (TickObjects(market, "r", SESSION.day) for _ in range(2))
    one.resume()
    other.resume()
    one.put(POLLS[0])
    other.put(POLLS[0])  # as when S3's answer to the first call was lost
    one.put(POLLS[1])
    with pytest.raises(ServingError, match=r"another feed of run r is at work: it has written ticks/r/.*: stop one"):
        other.put(POLLS[1].slice(0, 1))

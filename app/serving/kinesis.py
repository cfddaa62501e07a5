"""Kinesis as ticks need it: shards in the order of their records, and a writer that keeps the order of each ticker.

Nothing but boto3 and pyarrow is needed, so that a feed can use it without Spark. Every failure becomes a ServingError
here and nowhere else.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import boto3
import pyarrow as pa
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.errors import ServingError
from app.serving.tick_records import record_of

PAGE: Final = 10_000
"""Records that one GetRecords answers with at most."""
PUT: Final = 500
"""Records that one PutRecords takes."""
# Throttled calls wait rand(0, 1) x 1 s x 2**n, at most 20 s: a shard answers five GetRecords a second, of all readers.
_CONFIG: Final = Config(
    retries={"mode": "standard", "total_max_attempts": 12}, connect_timeout=5, read_timeout=25, tcp_keepalive=True
)
_PUT_TRIES: Final = 12
_PUT_WAIT_S: Final = 0.1
_PUT_LONGEST_WAIT_S: Final = 5.0
_MOST_EMPTY_PAGES: Final = 1000


@dataclass(frozen=True)
class Shard:
    """parents: the shards, none to two, that it was split or merged from; closed: it gets no more records."""

    shard_id: str
    parents: tuple[str, ...]
    closed: bool


@dataclass(frozen=True)
class Page:
    """Records as (sequence number, data), ascending, perhaps none.

    caught_up: there was no newer one; stored_s: when the last one arrived (epoch s), 0 without one.
    """

    records: Sequence[tuple[str, bytes]]
    caught_up: bool
    stored_s: float = 0.0


def connect_kinesis() -> Any:
    """A client that waits when it is throttled; where it finds AWS, boto3's own configuration says."""
    try:
        return boto3.client("kinesis", config=_CONFIG)
    except (BotoCoreError, ValueError) as exc:  # ValueError: an endpoint that is no URL
        raise ServingError(f"no Kinesis client can be made: {exc}: correct the AWS_* environment variables") from exc


class KinesisStream:
    """One stream, by its name. A client is not safe to share between processes: make one per process."""

    def __init__(self, name: str, client: Any = None) -> None:
        self.name = name
        self.client = client if client is not None else connect_kinesis()

    def shards(self) -> list[Shard]:
        """All shards of which records are kept, closed ones included."""
        with kinesis_errors(self.name, self.client):
            pages = self.client.get_paginator("list_shards").paginate(StreamName=self.name)
            found = [shard for page in pages for shard in page["Shards"]]
        return [
            Shard(
                shard["ShardId"],
                tuple(shard[key] for key in ("ParentShardId", "AdjacentParentShardId") if shard.get(key)),
                "EndingSequenceNumber" in shard["SequenceNumberRange"],
            )
            for shard in found
        ]

    def between(self, shard_id: str, after: str, until: str) -> Iterator[list[bytes]]:
        """A shard's records after a sequence number, up to and including another; ServingError when it is gone."""
        cursor, empty = Cursor(self, shard_id, after), 0
        while empty < _MOST_EMPTY_PAGES:
            page = cursor.read(PAGE)
            records = [data for number, data in page.records if int(number) <= int(until)]
            if records:
                yield records
            if page.records and int(page.records[-1][0]) >= int(until):
                return
            if cursor.ended or (page.caught_up and not page.records):
                break
            empty = 0 if page.records else empty + 1
        raise ServingError(
            f"Kinesis stream {self.name} no longer holds record {until} of {shard_id}:"
            " its retention must outlast a stop of the stream; start a new run id"
        )


class Cursor:
    """Reads one shard on after a record. after: its sequence number, empty for the oldest record.

    last: sequence number of the last record that was read; ended: the shard is closed and has been read to its end.
    """

    def __init__(self, stream: KinesisStream, shard_id: str, after: str) -> None:
        self.last, self.ended = after, False
        self._stream, self._shard_id = stream, shard_id
        self._iterator: str | None = None

    def read(self, limit: int) -> Page:
        """The next records. A page can be empty although more follow: AWS lays records out by time, too."""
        if self.ended:
            return Page((), caught_up=True)
        with kinesis_errors(self._stream.name, self._stream.client):
            answer = self._get_records(limit)
        self._iterator = answer.get("NextShardIterator")
        self.ended = self._iterator is None
        records = [(record["SequenceNumber"], record["Data"]) for record in answer["Records"]]
        stored_s = 0.0
        if records:
            self.last = records[-1][0]
            stored_s = answer["Records"][-1]["ApproximateArrivalTimestamp"].timestamp()
        return Page(records, answer.get("MillisBehindLatest", 0) == 0, stored_s)

    def _get_records(self, limit: int) -> Any:
        client = self._stream.client
        if self._iterator is not None:
            try:
                return client.get_records(ShardIterator=self._iterator, Limit=limit)
            except client.exceptions.ExpiredIteratorException:  # after five minutes
                pass
        place = (
            {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": self.last}
            if self.last
            else {"ShardIteratorType": "TRIM_HORIZON"}
        )
        made = client.get_shard_iterator(StreamName=self._stream.name, ShardId=self._shard_id, **place)
        return client.get_records(ShardIterator=made["ShardIterator"], Limit=limit)


def put_ticks(
    client: Any, stream: str, columns: pa.Table, sleep: Callable[[float], None] = time.sleep
) -> dict[str, str]:
    """Write rows of app.serving.ticks.columns_of as records, each by its ticker; returns each shard's last number.

    A request keeps no order, since some of its records can fail: none holds two of one ticker, and none is sent before
    the one before it has succeeded. What is sent twice, because an answer was lost, the stream counts as a duplicate.
    """
    rounds: dict[int, list[dict[str, Any]]] = defaultdict(list)
    seen: Counter[str] = Counter()
    for tick in columns.to_pylist():
        rounds[seen[tick["ticker"]]].append({"Data": record_of(tick), "PartitionKey": tick["ticker"]})
        seen[tick["ticker"]] += 1
    last: dict[str, str] = {}
    for records in rounds.values():
        for first in range(0, len(records), PUT):
            last = later(last, _put(client, stream, records[first : first + PUT], sleep))
    return last


def later(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """The later place of each shard."""
    return {shard: max(one.get(shard, "0"), other.get(shard, "0"), key=int) for shard in {**one, **other}}


def _put(client: Any, stream: str, records: list[dict[str, Any]], sleep: Callable[[float], None]) -> dict[str, str]:
    """One request, and those that take what of it failed."""
    last: dict[str, str] = {}
    for attempt in range(_PUT_TRIES):
        with kinesis_errors(stream, client):
            answers = client.put_records(StreamName=stream, Records=records)["Records"]
        for answer in answers:
            if "ErrorCode" not in answer:
                last = later(last, {answer["ShardId"]: answer["SequenceNumber"]})
        failed = [answer["ErrorCode"] for answer in answers if "ErrorCode" in answer]
        if not failed:
            return last
        records = [record for record, answer in zip(records, answers, strict=True) if "ErrorCode" in answer]
        sleep(min(_PUT_LONGEST_WAIT_S, _PUT_WAIT_S * 2**attempt))
    raise ServingError(
        f"Kinesis stream {stream} did not take {len(records)} records in {_PUT_TRIES} tries ({failed[0]}):"
        " give it more shards"
    )


@contextmanager
def kinesis_errors(stream: str, client: Any) -> Iterator[None]:
    """Failures of calls about one stream as a ServingError."""
    try:
        yield
    except ClientError as exc:
        error = exc.response.get("Error", {})
        code = str(error.get("Code", ""))
        if code == "ResourceNotFoundException":
            raise ServingError(
                f"there is no Kinesis stream {stream} in this account and region, or not that shard of it:"
                " correct serving.kinesis_stream, or create it"
            ) from exc
        why = f"{code}: {error.get('Message', exc)}"
        raise ServingError(f"Kinesis refused {exc.operation_name} on stream {stream}: {why}") from exc
    except BotoCoreError as exc:
        raise ServingError(
            f"Kinesis at {client.meta.endpoint_url} does not answer ({type(exc).__name__}):"
            " start it or check AWS_ENDPOINT_URL"
        ) from exc

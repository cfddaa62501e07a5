"""A Kinesis stream in memory that reshards as AWS does; moto moves a shard's records when it is split or merged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

_HASHES = 2**128


def arrived(number: int) -> datetime:
    """When a record arrived: by its sequence number, a second each."""
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)


class ExpiredIteratorException(ClientError):  # type: ignore[misc] # botocore is not typed
    """botocore's error for an iterator that is older than five minutes."""

    def __init__(self) -> None:
        super().__init__({"Error": {"Code": "ExpiredIteratorException", "Message": "Iterator expired."}}, "GetRecords")


@dataclass
class _Shard:
    first: int
    end: int
    parents: tuple[str, ...] = ()
    closed: bool = False
    records: list[tuple[int, bytes]] = field(default_factory=list)


class FakeKinesis:
    """The calls of boto3's Kinesis client that app.serving makes, for one stream.

    Numbers ascend over all shards, from 97 on: their order is not that of their text. A closed shard keeps its
    records, and says that it has ended only on a page after them. empty_pages: that GetRecords answers before the next
    records, as if they lay far from the place. refusals: error codes of the next records that are put, "" for none.
    calls: the names of calls, in order. page: the most records of an answer.
    """

    meta = SimpleNamespace(endpoint_url="http://x")
    exceptions = SimpleNamespace(ExpiredIteratorException=ExpiredIteratorException)

    def __init__(self, shards: int = 1, page: int = 10_000) -> None:
        step = _HASHES // shards
        self.shards = {self._name(i): _Shard(i * step, (i + 1) * step) for i in range(shards)}
        self.calls: list[str] = []
        self.requests: list[list[str]] = []
        self.refusals: list[str] = []
        self.empty_pages = 0
        self._page, self._number, self._issue = page, 96, 0

    def shard_of(self, key: str) -> str:
        """The open shard that takes a key's records."""
        at = int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest(), 16)
        return next(name for name, shard in self.shards.items() if not shard.closed and shard.first <= at < shard.end)

    def put(self, key: str, data: bytes) -> dict[str, str]:
        """One record, as any producer puts it."""
        self._number += 1
        name = self.shard_of(key)
        self.shards[name].records.append((self._number, data))
        return {"ShardId": name, "SequenceNumber": str(self._number)}

    def split(self, name: str) -> tuple[str, str]:
        """Halve an open shard; returns its children."""
        shard = self.shards[name]
        middle = (shard.first + shard.end) // 2
        shard.closed = True
        return self._add(shard.first, middle, name), self._add(middle, shard.end, name)

    def merge(self, one: str, other: str) -> str:
        """Join two open neighbours; returns their child."""
        low, high = self.shards[one], self.shards[other]
        assert low.end == high.first
        low.closed = high.closed = True
        return self._add(low.first, high.end, one, other)

    def expire(self) -> None:
        """All iterators are too old."""
        self._issue += 1

    # --- the client's calls ---

    def put_records(self, StreamName: str, Records: Sequence[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        """Each record in its turn; one that is refused does not stop those after it."""
        self.requests.append([record["PartitionKey"] for record in Records])
        answers = []
        for record in Records:
            code = self.refusals.pop(0) if self.refusals else ""
            answers.append({"ErrorCode": code} if code else self.put(record["PartitionKey"], record["Data"]))
        return {"Records": answers}

    def get_paginator(self, name: str) -> FakeKinesis:
        """This object: the only list is that of its shards."""
        assert name == "list_shards"
        return self

    def paginate(self, StreamName: str) -> Iterator[dict[str, Any]]:  # noqa: N803
        """Pages of one shard, the youngest first: nobody promises another order."""
        self.calls.append("ListShards")
        for name, shard in reversed(self.shards.items()):
            found: dict[str, Any] = {"ShardId": name, "SequenceNumberRange": {"StartingSequenceNumber": "1"}}
            if shard.closed:
                found["SequenceNumberRange"]["EndingSequenceNumber"] = "2"
            found |= dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))
            yield {"Shards": [found]}

    def get_shard_iterator(self, ShardId: str, **call: Any) -> dict[str, str]:  # noqa: N803
        """The place after a record, or before all of them."""
        self.calls.append("GetShardIterator")
        after = {"AFTER_SEQUENCE_NUMBER": call.get("StartingSequenceNumber"), "TRIM_HORIZON": "0"}
        return {"ShardIterator": f"{ShardId}/{after[call['ShardIteratorType']]}/{self._issue}"}

    def get_records(self, ShardIterator: str, Limit: int) -> dict[str, Any]:  # noqa: N803
        """The records after the iterator's place."""
        self.calls.append("GetRecords")
        name, after, issue = ShardIterator.split("/")
        if int(issue) != self._issue:
            raise ExpiredIteratorException
        if self.empty_pages:
            self.empty_pages -= 1
            return {"Records": [], "NextShardIterator": ShardIterator, "MillisBehindLatest": 1000}
        shard = self.shards[name]
        left = [(number, data) for number, data in shard.records if number > int(after)]
        page = left[: min(Limit, self._page)]
        last = page[-1][0] if page else after
        ended = shard.closed and not left
        return {
            "Records": [
                {"SequenceNumber": str(number), "Data": data, "ApproximateArrivalTimestamp": arrived(number)}
                for number, data in page
            ],
            "NextShardIterator": None if ended else f"{name}/{last}/{self._issue}",
            "MillisBehindLatest": 1000 * (len(left) - len(page)),
        }

    def _add(self, first: int, end: int, *parents: str) -> str:
        name = self._name(len(self.shards))
        self.shards[name] = _Shard(first, end, parents)
        return name

    @staticmethod
    def _name(number: int) -> str:
        return f"shardId-{number:012d}"

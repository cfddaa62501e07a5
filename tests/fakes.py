"""Small stand-ins that several tests share: S3 in memory, sessions and bars made by hand."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from botocore.exceptions import ClientError

from app import contract
from app.sessions import Session
from app.storage import Bucket
from app.tables import arrow_schema

FIRST_DAY = date(2025, 12, 1)


def client_error(code: str, operation: str = "GetObject") -> ClientError:
    """botocore's error for an answer of S3 with this code."""
    return ClientError({"Error": {"Code": code, "Message": "as S3 says it"}}, operation)


@dataclass(frozen=True)
class _Object:
    body: bytes
    modified: datetime

    @property
    def etag(self) -> str:
        """As S3 makes it of what is uploaded in one piece."""
        return f'"{hashlib.md5(self.body, usedforsecurity=False).hexdigest()}"'


class FakeS3:
    """The calls of boto3's S3 client that app.storage makes, in memory; keys are those of one bucket.

    puts: keys in the order they were written. gets: (key, bytes sent) of what was read, in order. error: raised by
    every call instead of an answer.
    """

    meta = SimpleNamespace(endpoint_url="http://x")

    def __init__(self, error: Exception | None = None) -> None:
        self.objects: dict[str, _Object] = {}
        self.puts: list[str] = []
        self.gets: list[tuple[str, range]] = []
        self.error = error

    def put_object(self, **call: Any) -> dict[str, Any]:
        """Keep an object, if what is there is what IfMatch or IfNoneMatch says; each is modified a second later."""
        self._fail_as_told()
        there = self.objects.get(call["Key"])
        if "IfMatch" in call and there is None:
            raise client_error("NoSuchKey", "PutObject")
        if (there and "IfNoneMatch" in call) or (there and call.get("IfMatch", there.etag) != there.etag):
            raise client_error("PreconditionFailed", "PutObject")
        self.puts.append(call["Key"])
        written = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=len(self.puts))
        stored = self.objects[call["Key"]] = _Object(call["Body"], written)
        return {"ETag": stored.etag}

    def get_object(self, **call: Any) -> dict[str, Any]:
        """An object's body, or the part of it that Range names, if it is what IfMatch says; or NoSuchKey."""
        self._fail_as_told()
        found = self.objects.get(call["Key"])  # asked for once: other threads change what is there
        if found is None:
            raise client_error("NoSuchKey")
        if call.get("IfMatch", found.etag) != found.etag:
            raise client_error("PreconditionFailed")
        first, last = map(int, call.get("Range", f"bytes=0-{len(found.body)}").removeprefix("bytes=").split("-"))
        if first >= max(1, len(found.body)):
            raise client_error("InvalidRange")
        sent = range(first, min(last + 1, len(found.body)))
        self.gets.append((call["Key"], sent))
        return {"Body": io.BytesIO(found.body[sent.start : sent.stop]), "ETag": found.etag}

    def head_object(self, **call: Any) -> dict[str, Any]:
        """An object's size and ETag, or the bare 404 that an answer without a body can tell."""
        self._fail_as_told()
        found = self.objects.get(call["Key"])
        if found is None:
            raise client_error("404", "HeadObject")
        return {"ContentLength": len(found.body), "ETag": found.etag}

    def delete_object(self, **call: Any) -> None:
        """Whatever was there is gone."""
        self._fail_as_told()
        self.objects.pop(call["Key"], None)

    def get_paginator(self, name: str) -> FakeS3:
        """This object: the only list is that of its objects."""
        assert name == "list_objects_v2"
        return self

    def paginate(self, **call: Any) -> Iterator[dict[str, Any]]:
        """Pages of two objects, ascending, and a last one without any."""
        self._fail_as_told()
        keys = sorted(k for k in self.objects if k.startswith(call["Prefix"]) and k > call["StartAfter"])
        for first in range(0, len(keys), 2):
            page = [(key, self.objects[key]) for key in keys[first : first + 2]]
            yield {"Contents": [{"Key": k, "LastModified": o.modified, "Size": len(o.body)} for k, o in page]}
        yield {}

    def _fail_as_told(self) -> None:
        if self.error is not None:
            raise self.error


class Killed(BaseException):
    """The process ended here."""


class CrashingS3(FakeS3):
    """Raises Killed instead of its next change when `changes_left` of them are done, and at every one after it.

    changes: (put or delete, key) in the order they were made; changes_left: None to go on for ever.
    """

    def __init__(self, changes_left: int | None = None) -> None:
        super().__init__()
        self.changes: list[tuple[str, str]] = []
        self.changes_left = changes_left
        self._lock = threading.Lock()

    def put_object(self, **call: Any) -> dict[str, Any]:
        """As FakeS3's."""
        with self._lock:
            self._change("put", call["Key"])
            return super().put_object(**call)

    def delete_object(self, **call: Any) -> None:
        """As FakeS3's."""
        with self._lock:
            self._change("delete", call["Key"])
            super().delete_object(**call)

    def _change(self, how: str, key: str) -> None:
        if self.changes_left is not None:
            if not self.changes_left:
                raise Killed
            self.changes_left -= 1
        self.changes.append((how, key))


def bucket(s3: FakeS3 | None = None) -> Bucket:
    """A bucket in memory."""
    return Bucket("fake", s3 or FakeS3())


class FakeTime:
    """A clock that only sleeping moves; `slept` are the sleeps in seconds."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.slept.append(seconds)
        self.now_s += seconds


def make_sessions(*minutes: int) -> tuple[Session, ...]:
    """Sessions of so many minutes on consecutive days, each from 14:30 UTC."""
    days = [FIRST_DAY + timedelta(days=i) for i in range(len(minutes))]
    opens = [int(datetime(d.year, d.month, d.day, 14, 30, tzinfo=UTC).timestamp()) for d in days]
    return tuple(Session(*each) for each in zip(days, opens, minutes, strict=True))


def make_bars(
    ticker: str,
    session: Session,
    minutes: Sequence[int] | None = None,
    *,
    closes: npt.ArrayLike | None = None,
    volumes: npt.ArrayLike | None = None,
) -> pa.Table:
    """Bars of one session, by default of all its minutes; a random walk of its own for each ticker and day.

    The open differs from the close before it; high and low lie beyond open and close.
    """
    at = np.arange(session.minutes) if minutes is None else np.asarray(minutes, np.int64)
    random = np.random.default_rng([*ticker.encode(), session.day.toordinal()])
    close = np.round(100 * np.exp(random.normal(0, 0.001, len(at)).cumsum()), 4) if closes is None else closes
    columns: dict[str, Any] = {"close": np.asarray(close, np.float64)}
    columns["open"] = np.round(columns["close"] * np.exp(random.normal(0, 0.0005, len(at))), 4)
    columns["volume"] = random.integers(1, 10_000, len(at)) if volumes is None else np.asarray(volumes, np.int64)
    above, below = np.exp(random.exponential(0.0005, (2, len(at))))
    columns["high"] = np.round(np.maximum(columns["open"], columns["close"]) * above, 4)
    columns["low"] = np.round(np.minimum(columns["open"], columns["close"]) / below, 4)
    columns["ticker"] = [ticker] * len(at)
    schema = arrow_schema(contract.BARS)
    columns["ts"] = pa.array((session.open_ts + contract.BAR_S * at) * 1000).cast(schema.field("ts").type)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def market_bars(tickers: Sequence[str], sessions: Sequence[Session], gaps: Mapping[str, int] | None = None) -> pa.Table:
    """Bars of all sessions, ordered; a ticker in `gaps` lacks every so-manieth minute, the first one included."""
    gaps = gaps or {}
    return pa.concat_tables(
        make_bars(ticker, session, [m for m in range(session.minutes) if ticker not in gaps or m % gaps[ticker]])
        for ticker in sorted(tickers)
        for session in sessions
    )


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """The table with one column's values replaced."""
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))


class FakeState:
    """Spark's state of one group."""

    def __init__(self, value: tuple[bytes] | None = None) -> None:
        self.value = value

    @property
    def exists(self) -> bool:
        """Whether it was ever written."""
        return self.value is not None

    @property
    def get(self) -> tuple[bytes]:
        """What was written."""
        assert self.value is not None
        return self.value

    def update(self, value: tuple[bytes]) -> None:
        """Write it."""
        self.value = value

"""S3 as the phases see it: whole objects under deterministic keys.

Nothing but boto3 is needed, so that a Lambda can use it too; tables are in app.tables. The endpoint comes
from boto3's own configuration (``AWS_ENDPOINT_URL`` for the embedded AWS), so the same code runs against
both. Every failure of boto3 becomes a StorageError here and nowhere else.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Final

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from app.errors import ObjectChanged, ObjectMissing, StorageError

JSON_TYPE: Final = "application/json"
# botocore waits rand(0, 1) x 50 ms x 2**n between tries: nine of them outlast 6.4 s of errors on average
_TRIES: Final = 9
_CONNECT_S: Final = 5
_READ_S: Final = 25
PATIENCE_S: Final = _TRIES * (_CONNECT_S + _READ_S) + sum(0.05 * 2**n for n in range(_TRIES - 1))
"""After so long, at most, a call to an S3 that says nothing is a StorageError."""
_PATIENT_TRIES: Final = 15
"""Botocore waits 20 s at most: five of its waits do, and outlast 50 s of errors on average, 10 s as good as always."""
_BODY_TRIES: Final = 3
"""Botocore tries a call again, but not the reading of an answer that breaks off."""
_BROKEN_BODY: Final = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
_READ_AHEAD: Final = 1 << 16
_MISSING_CODES = frozenset({"NoSuchKey", "404", "NotFound"})
_CHANGED_CODES = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


@dataclass(frozen=True)
class ObjectInfo:
    """One listed object."""

    key: str
    modified: datetime
    size_bytes: int


class Bucket:
    """One bucket: put, get and list whole objects. on_answer: called after each call that S3 answered.

    A client is not safe to share between processes: make one Bucket per process. patient: whether a call outlasts tens
    of seconds of S3's errors, as a stream that runs all day should.
    """

    def __init__(
        self,
        name: str,
        client: Any = None,
        on_answer: Callable[[], None] = lambda: None,
        *,
        patient: bool = False,
    ) -> None:
        self.name = name
        self._client = client if client is not None else _connect(_PATIENT_TRIES if patient else _TRIES)
        self._on_answer = on_answer

    def put(
        self, key: str, body: bytes, content_type: str = "application/octet-stream", *, replaces: str | None = None
    ) -> str:
        """Write one object whole; returns its ETag.

        replaces: ETag of what it takes the place of, empty for nothing: ObjectChanged, or ObjectMissing, and nothing
        written, when something else is there by now. None takes the place of whatever is there.
        """
        condition = {} if replaces is None else {"IfMatch": replaces} if replaces else {"IfNoneMatch": "*"}
        with self._storage_errors(key):
            told = self._client.put_object(Bucket=self.name, Key=key, Body=body, ContentType=content_type, **condition)
        return str(told["ETag"])

    def get(self, key: str) -> bytes:
        """The whole object; ObjectMissing when there is none."""
        return self.get_tagged(key)[0]

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        """The whole object and its ETag; ObjectMissing when there is none."""
        return self._get(key)

    def open(self, key: str) -> BinaryIO:
        """The object as a file that is read in parts; ObjectMissing when there is none.

        What is read is of the object that was there when it was opened: ObjectChanged when another one has taken its
        place, and it has to be opened again.
        """
        return io.BufferedReader(_ObjectFile(self, key, *self.size_tagged(key)), _READ_AHEAD)

    def size_tagged(self, key: str) -> tuple[int, str]:
        """Bytes of an object and its ETag; ObjectMissing when there is none."""
        with self._storage_errors(key):
            told = self._client.head_object(Bucket=self.name, Key=key)
        return int(told["ContentLength"]), str(told["ETag"])

    def get_range(self, key: str, first: int, size: int, tag: str = "") -> bytes:
        """`size` bytes of an object from byte `first` on; ObjectChanged when its ETag is not `tag`, if one is given."""
        condition = {"IfMatch": tag} if tag else {}
        return self._get(key, Range=f"bytes={first}-{first + size - 1}", **condition)[0]

    def delete(self, key: str) -> None:
        """Remove one object; one that is not there is no error."""
        with self._storage_errors(key):
            self._client.delete_object(Bucket=self.name, Key=key)

    def exists(self, key: str) -> bool:
        """Whether there is an object under this very key."""
        try:
            with self._storage_errors(key):
                self._client.head_object(Bucket=self.name, Key=key)
        except ObjectMissing:
            return False
        return True

    def objects(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects below `prefix` in ascending key order, those after `start_after` only."""
        with self._storage_errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=prefix, StartAfter=start_after
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    yield ObjectInfo(item["Key"], item["LastModified"], item["Size"])

    def keys(self, prefix: str, start_after: str = "") -> list[str]:
        """Keys below `prefix`, ascending."""
        return [info.key for info in self.objects(prefix, start_after)]

    def put_json(self, key: str, value: Any) -> None:
        """Write a JSON document; the same value always gives the same bytes."""
        self.put(key, to_json(value), JSON_TYPE)

    def get_json(self, key: str) -> Any:
        """Read a JSON document."""
        return json.loads(self.get(key))

    def _get(self, key: str, **part: str) -> tuple[bytes, str]:
        """An object, or a part of it, and its ETag. part: of the call, beside the object's name."""
        with self._storage_errors(key):
            for left in reversed(range(_BODY_TRIES)):
                answer = self._client.get_object(Bucket=self.name, Key=key, **part)
                try:
                    return answer["Body"].read(), answer["ETag"]
                except _BROKEN_BODY:
                    if not left:
                        raise
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def _storage_errors(self, key: str) -> Iterator[None]:
        try:
            yield
            self._on_answer()
        except ClientError as exc:
            code = str(exc.response.get("Error", {}).get("Code", ""))
            if code in _MISSING_CODES:
                raise ObjectMissing(self.name, key) from exc
            if code in _CHANGED_CODES:
                raise ObjectChanged(self.name, key) from exc
            if code == "NoSuchBucket":
                raise StorageError(f"bucket {self.name} does not exist: check the STOCKFLOW_*_BUCKET names") from exc
            raise StorageError(f"S3 refused {exc.operation_name} on s3://{self.name}/{key}: {code or exc}") from exc
        except BotoCoreError as exc:
            endpoint = self._client.meta.endpoint_url
            raise StorageError(
                f"S3 at {endpoint} does not answer ({type(exc).__name__}): start it or check AWS_ENDPOINT_URL"
            ) from exc


class _ObjectFile(io.RawIOBase):
    """An object of a bucket, each read a request of its own, all of the same version of it."""

    def __init__(self, bucket: Bucket, key: str, size: int, tag: str) -> None:
        super().__init__()
        self._bucket, self._key, self._size, self._tag, self._at = bucket, key, size, tag, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        buffer[:wanted] = self._bucket.get_range(self._key, self._at, wanted, self._tag)
        self._at += wanted
        return wanted


def _connect(tries: int) -> Any:
    config = Config(
        retries={"mode": "standard", "total_max_attempts": tries}, connect_timeout=_CONNECT_S, read_timeout=_READ_S
    )
    try:
        return boto3.client("s3", config=config)
    except (BotoCoreError, ValueError) as exc:  # ValueError: an endpoint that is no URL
        raise StorageError(f"no S3 client can be made: {exc}: correct the AWS_* environment variables") from exc


def to_json(value: Any) -> bytes:
    """JSON bytes: keys in the given order, dates as ISO text, no NaN."""
    return (json.dumps(value, indent=1, default=str, allow_nan=False) + "\n").encode()


def fingerprint(*parts: bytes) -> str:
    """SHA-256 over the parts, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()

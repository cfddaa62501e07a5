"""A bucket as it changes: what is listed anew is read once for each time that it was written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar, cast

import pyarrow as pa

from app.clock import Clock, system_clock
from app.errors import ObjectMissing, StockflowError, StorageError
from app.storage import Bucket, ObjectInfo

T = TypeVar("T")
_SETTLED: Final = timedelta(seconds=3)
"""S3 tells to the second when an object was written: one that is younger may be written again and look the same."""

Stamp = tuple[str, datetime, int]


class Objects:
    """unreadable: keys of objects whose content nobody here understands, and why."""

    def __init__(self, bucket: Bucket, clock: Clock = system_clock) -> None:
        self.unreadable: dict[str, str] = {}
        self._bucket, self._clock = bucket, clock
        self._held: dict[str, tuple[Stamp, Any]] = {}
        self._asked: set[str] = set()

    def listed(self, prefix: str, start_after: str = "") -> dict[str, ObjectInfo]:
        """What lies below a prefix by key, ascending."""
        return {info.key: info for info in self._bucket.objects(prefix, start_after)}

    def read(self, info: ObjectInfo | None, parse: Callable[[Bucket, str], T]) -> T | None:
        """What `parse` makes of an object: of one key always the same kind of thing.

        None when it is not there, not there any more, or not what `parse` expects.
        """
        if info is None:
            return None
        key, stamp = info.key, stamp_of(info)
        self._asked.add(key)
        if key in self._held and self._held[key][0] == stamp:
            return cast("T | None", self._held[key][1])
        now, value = self._clock(), self._parsed(key, parse)
        self._held.pop(key, None)
        if now - info.modified > _SETTLED:
            self._held[key] = stamp, value
        return value

    def json(self, info: ObjectInfo | None, make: Callable[[Any], T]) -> T | None:
        """What `make` makes of a JSON document; None as `read`."""
        return self.read(info, lambda bucket, key: make(bucket.get_json(key)))

    def sweep(self) -> None:
        """Let go of all that was not asked for since the last time."""
        self._held = {key: held for key, held in self._held.items() if key in self._asked}
        self.unreadable = {key: why for key, why in self.unreadable.items() if key in self._asked}
        self._asked = set()

    def _parsed(self, key: str, parse: Callable[[Bucket, str], T]) -> T | None:
        self.unreadable.pop(key, None)
        try:
            return parse(self._bucket, key)
        except ObjectMissing:
            return None
        except StorageError as exc:
            if not isinstance(exc.__cause__, pa.ArrowException):
                raise
            why: Exception = exc
        except (StockflowError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException) as exc:
            why = exc
        self.unreadable[key] = f"s3://{self._bucket.name}/{key}: {type(why).__name__}: {why}"
        return None


def stamp_of(info: ObjectInfo) -> Stamp:
    """What changes when an object is written anew."""
    return info.key, info.modified, info.size_bytes

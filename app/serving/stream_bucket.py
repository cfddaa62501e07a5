"""The buckets of a process of the stream: connected once, and patient."""

from __future__ import annotations

from functools import lru_cache

from app.storage import Bucket


@lru_cache(maxsize=8)
def stream_bucket(name: str) -> Bucket:
    """A bucket that outlasts tens of seconds of S3's errors: a worker's task, and the source's process, go on after."""
    return Bucket(name, patient=True)

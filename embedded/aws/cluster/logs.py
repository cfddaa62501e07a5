"""Where a cluster's logs go: text files that are copied to S3 while they grow."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from embedded.aws.account import Credentials, client

_EVERY_S = 5.0
"""EMR copies them every five minutes; who waits in front of a screen does not wait that long."""
_PATIENCE = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "max_attempts": 2})
"""The end of a step waits for its last copy."""


@dataclass(frozen=True)
class LogStore:
    """The place in S3 that a cluster's LogUri names, written with the rights of the cluster's nodes."""

    s3: Any
    bucket: str
    prefix: str

    @classmethod
    def at(cls, uri: str, cluster_id: str, endpoint: str, credentials: Credentials) -> LogStore:
        """uri: s3://bucket/prefix/, or one of the older schemes of EMR."""
        bucket, _, prefix = uri.partition("://")[2].partition("/")
        folder = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        return cls(client("s3", endpoint, credentials, _PATIENCE), bucket, f"{folder}{cluster_id}/")

    def uri(self, name: str) -> str:
        """Where a file of this name lies."""
        return f"s3://{self.bucket}/{self.prefix}{name}"

    def put(self, name: str, content: bytes) -> bool:
        """Store a file, compressed; whether that went well: a role that may not write loses its logs, no more."""
        try:
            self.s3.put_object(Bucket=self.bucket, Key=f"{self.prefix}{name}", Body=gzip.compress(content))
        except (ClientError, BotoCoreError):
            return False
        return True


class LogFiles:
    """Text files in a folder, each copied whole and compressed to `<place>/<name>.gz` when it has grown.

    store: None keeps them in the folder alone. Safe to use from several threads.
    """

    def __init__(self, folder: Path, place: str, names: Sequence[str], store: LogStore | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = {name: folder / name for name in names}
        self._files: Mapping[str, IO[str]] = {
            name: path.open("a", buffering=1, encoding="utf-8") for name, path in self._paths.items()
        }
        self._last = dict.fromkeys(names, "")
        self._copied = dict.fromkeys(names, 0)
        self._place = place
        self._store = store
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._copier = threading.Thread(target=self._copy_always, daemon=True)
        self._copier.start()

    def line(self, name: str, text: str) -> None:
        """Append a line to a file; after the end it is dropped, for a process may hold its output open longer."""
        with self._lock:
            if not self._files[name].closed:
                self._files[name].write(f"{text}\n")
                self._last[name] = text.strip() or self._last[name]

    def last(self, name: str) -> str:
        """The last line of a file that is not empty."""
        return self._last[name]

    def close(self) -> None:
        """Copy what is left."""
        with self._lock:
            for file in self._files.values():
                file.close()
        self._done.set()
        self._copier.join()

    def _copy_always(self) -> None:
        while not self._done.wait(_EVERY_S):
            self._copy()
        self._copy()

    def _copy(self) -> None:
        for name, path in self._paths.items():
            size = path.stat().st_size
            if self._store is not None and size > self._copied[name]:
                content = path.read_bytes()
                if self._store.put(f"{self._place}/{name}.gz", content):
                    self._copied[name] = len(content)

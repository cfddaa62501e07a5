"""Reads what pages show, over and over, in a thread of its own: a page never waits for S3."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.errors import StockflowError
from dashboard.snapshot import Reader, Snapshot
from dashboard.source import Source

_RESTS: Final = 4
"""After a reading it rests so many times as long as that took: S3 and this machine have other things to do."""
_FORGOTTEN_AFTER_S: Final = 20.0
"""A run that no page has asked for so long is not read any more."""


@dataclass(frozen=True)
class Seen:
    """What a page is told. trouble: why the last reading failed, empty when it did not; snapshot: the last that did."""

    snapshot: Snapshot | None
    trouble: str


class Watch:
    """find: where to read at this moment; asked again after each failure, and while what is read only stands in.

    every_s: rests so long after a reading, at least.
    """

    def __init__(self, find: Callable[[], Source], every_s: float = 2.0) -> None:
        self.every_s = every_s
        self._find = find
        self._reader: Reader | None = None
        self._seen: dict[str, Seen] = {}
        self._asked_s: dict[str, float] = {}
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to read, once a page asks."""
        self._thread.start()

    def seen(self, run_id: str) -> Seen:
        """What was read last of a run, of the newest one where the name is empty; it goes on being read."""
        with self._lock:
            self._asked_s[run_id] = time.monotonic()
        self._wanted.set()
        return self._seen.get(run_id, Seen(None, ""))

    def look(self) -> None:
        """Read what is wanted, once."""
        run_ids = self._still_wanted()
        try:
            if self._reader is None or self._reader.source.stands_in:
                source = self._find()
                if self._reader is None or source.name != self._reader.source.name:
                    self._reader = Reader(source)
            found = self._reader.read(run_ids)
        except StockflowError as exc:
            self._reader = None
            self._seen |= {run_id: Seen(self._last(run_id), f"{exc}") for run_id in run_ids}
        else:
            self._seen = {run_id: Seen(snapshot, "") for run_id, snapshot in found.items()}

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            began_s = time.monotonic()
            try:
                self.look()
            except Exception as exc:  # a bug must not end the thread that all pages live on
                traceback.print_exc(file=sys.stderr)
                trouble = f"the dashboard failed, see its terminal: {type(exc).__name__}: {exc}"
                self._seen |= {run_id: Seen(self._last(run_id), trouble) for run_id in self._still_wanted()}
            time.sleep(max(self.every_s, _RESTS * (time.monotonic() - began_s)))

    def _last(self, run_id: str) -> Snapshot | None:
        return self._seen[run_id].snapshot if run_id in self._seen else None

    def _still_wanted(self) -> list[str]:
        oldest_s = time.monotonic() - _FORGOTTEN_AFTER_S
        with self._lock:
            self._asked_s = {run_id: asked_s for run_id, asked_s in self._asked_s.items() if asked_s > oldest_s}
            return list(self._asked_s)

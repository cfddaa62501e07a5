"""Ends a rank that does not get on: a hang must cost minutes, not the job's whole time."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from app.errors import TrainingError

Beat = Callable[[str], None]
"""Says that a rank got on, and what it begins to do."""


class Watchdog:
    """Ends the process when nobody calls `beat` for `stall_s` seconds.

    Ranks wait for each other at every step, so one that hangs is noticed by all others, and mpirun ends the job
    with the first that leaves. A thread, for the main one may be waiting inside Horovod.
    """

    def __init__(self, rank: int, stall_s: float) -> None:
        self._rank, self._stall_s = rank, stall_s
        self._doing, self._since = "start", time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._since = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def beat(self, doing: str) -> None:
        """The rank got on, and begins to do this."""
        self._doing, self._since = doing, time.monotonic()

    def still(self) -> None:
        """The rank gets on with what it does."""
        self._since = time.monotonic()

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._stall_s / 4)):
            stalled_s = time.monotonic() - self._since
            if stalled_s > self._stall_s:
                print(
                    f"rank {self._rank}: nothing got on for {stalled_s:.0f} s in {self._doing}: this rank, another"
                    " one or the network hangs; start the job again, or raise training.stall_timeout_s if it is slow",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(TrainingError.exit_code)

"""How much memory a run takes: the resident memory of a process and all its descendants, sampled."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

import psutil

_EVERY_S = 0.5


class MemoryWatch:
    """Context manager; `peak_mib` is the largest sum seen. Pages that processes share count for each."""

    def __init__(self, pid: int) -> None:
        self.peak_mib = 0
        self._root = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> MemoryWatch:
        """Begin to sample."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Stop."""
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(_EVERY_S):
            total = 0
            with contextlib.suppress(psutil.Error):
                for process in [self._root, *self._root.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        total += process.memory_info().rss
            self.peak_mib = max(self.peak_mib, total >> 20)

"""An asyncio loop whose clock jumps to the next event: an hour of waiting takes as long as its computing."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class _Jumping(selectors.SelectSelector):
    """Passes the time instead of waiting."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("all wait, and nobody is left to wake them")
            self.now_s += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def run_in_virtual_time(main: Coroutine[Any, Any, _T]) -> _T:
    """Like asyncio.run, from 0 s on, for coroutines that wait for time and each other, never for the outside."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)

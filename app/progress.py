"""What a running phase tells the person, or the driver, who waits for it.

A phase calls `report(done, total, note)`. On a terminal that is one live line; where the output is
collected (``STOCKFLOW_PROGRESS=json``) one JSON object a line; elsewhere a plain line now and then.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Literal

Mode = Literal["json", "live", "plain"]
Report = Callable[[int, int, str], None]

Say = Callable[[str], None]
"""Says one line for good."""

_PLAIN_EVERY_S = 5.0
_LINE = 100


def silent(done: int, total: int, note: str) -> None:
    """A Report that says nothing."""


def teller(phase: str, mode: Mode) -> Say:
    """A Say for `phase` on standard output, between the reports of `reporter`."""
    if mode == "live":
        return lambda line: print(f"\r{f'{phase}: {line}':<{_LINE}}", flush=True)
    return lambda line: print(f"{phase}: {line}", flush=True)


def choose_mode(asked: str | None) -> Mode:
    """How to report: as asked for, else live on a terminal and plain elsewhere."""
    if asked == "json":
        return "json"
    return "live" if sys.stdout.isatty() else "plain"


def reporter(phase: str, mode: Mode) -> Report:
    """A Report for `phase` on standard output."""
    if mode == "json":
        return lambda done, total, note: print(
            json.dumps({"phase": phase, "done": done, "total": total, "note": note}), flush=True
        )
    if mode == "live":
        return _live(phase)
    return _plain(phase)


def _plain(phase: str) -> Report:
    last = -_PLAIN_EVERY_S

    def report(done: int, total: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PLAIN_EVERY_S or done == total:
            last = now
            print(f"{phase}: {done}/{total} {note}", flush=True)

    return report


def _live(phase: str) -> Report:
    width = 0

    def report(done: int, total: int, note: str) -> None:
        nonlocal width
        line = f"{phase}: {done}/{total} {note}"
        width = max(width, len(line))
        print(f"\r{line:<{width}}", end="\n" if total and done >= total else "", flush=True)

    return report

"""A check of `stockflow doctor`: what it finds, its time limit, and all of them at once."""

from __future__ import annotations

import queue
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Literal

from app.errors import StockflowError
from app.processes import Child

Status = Literal["ok", "warning", "failure"]

_GRACE_S = 3.0
"""What a check whose time is over has to end its programs, before it is left alone."""


@dataclass(frozen=True)
class Finding:
    """What a check found, and in one line what to do about it; nothing where all is well."""

    status: Status
    found: str
    todo: str = ""


@dataclass(frozen=True)
class Check:
    """One thing to find out. ask: finds it out within so many seconds; overdue: what to do when it does not."""

    name: str
    limit_s: float
    ask: Callable[[float], Finding]
    overdue: str


@dataclass(frozen=True)
class Result:
    """A check that was made."""

    name: str
    finding: Finding
    seconds: float


def good(found: str) -> Finding:
    """All is well."""
    return Finding("ok", found)


def warning(found: str, todo: str) -> Finding:
    """A run will do, but less well."""
    return Finding("warning", found, todo)


def failure(found: str, todo: str) -> Finding:
    """A run would fail."""
    return Finding("failure", found, todo)


def examine(checks: Sequence[Check]) -> Iterator[Result]:
    """Make all checks side by side; yields each as it ends, or as its time is over, whatever becomes of it."""
    ended: queue.Queue[Result] = queue.Queue()
    started = time.monotonic()
    for check in checks:
        Thread(target=_make, args=(check, started, ended), daemon=True).start()
    waiting = {check.name: check for check in checks}
    while waiting:
        first = min(waiting.values(), key=lambda check: check.limit_s)
        try:
            result = ended.get(timeout=max(0.0, started + first.limit_s + _GRACE_S - time.monotonic()))
        except queue.Empty:
            result = Result(first.name, _overdue(first), time.monotonic() - started)
        if waiting.pop(result.name, None):
            yield result


def output_of(argv: Sequence[str], environ: Mapping[str, str], limit_s: float) -> tuple[int, list[str]]:
    """Exit status of a program, and all lines that it printed; subprocess.TimeoutExpired when it runs on.

    It and what it has started are ended then: a shell script's sleep would hold the output open.
    """
    lines: list[str] = []
    child = Child(argv, environ, lines.append, lines.append)
    try:
        return child.wait(limit_s, end_group=True), lines
    finally:
        child.stop(_GRACE_S / 3)


def _make(check: Check, started: float, ended: queue.Queue[Result]) -> None:
    try:
        finding = check.ask(check.limit_s)
    except subprocess.TimeoutExpired:
        finding = _overdue(check)
    except StockflowError as exc:  # "what is wrong: what to change"
        found, _, todo = str(exc).partition(": ")
        finding = failure(found, todo)
    except Exception as exc:  # whatever a machine comes up with, the other checks are told
        finding = failure(f"could not be checked ({type(exc).__name__}: {exc})", "try again; what stays is a bug")
    ended.put(Result(check.name, finding, time.monotonic() - started))


def _overdue(check: Check) -> Finding:
    return failure(f"no answer within {check.limit_s:g} s", check.overdue)

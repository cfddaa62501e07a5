"""Run other programs: for what they print, or with a log and the time they take."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

LOG_LINES_SHOWN = 30


class StepError(Exception):
    """A step of the set-up that did not work; the message tells the user what to do or where to look."""


def output_of(*command: str) -> str | None:
    """What `command` prints on both streams, or None when it cannot be started or fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def open_mpi_version() -> str | None:
    """The version of the Open MPI whose mpirun is on PATH; None without one or with another MPI."""
    found = re.search(r"\(Open MPI\) (\S+)", output_of("mpirun", "--version") or "")
    return found.group(1) if found else None


def run_logged(command: Sequence[str], log: Path, *, cwd: Path, env: Mapping[str, str] | None = None) -> None:
    """Run `command` in `cwd` with `env` added to the environment, appending all that it prints to `log`.

    Raises StepError with the end of the log when the command cannot be started or fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as sink:
        print("$", *command, file=sink, flush=True)
        try:
            done = subprocess.run(
                command, cwd=cwd, env={**os.environ, **(env or {})}, stdout=sink, stderr=subprocess.STDOUT, check=False
            )
        except OSError as exc:
            raise StepError(f"{command[0]} cannot be started: {exc}") from exc
    if done.returncode != 0:
        raise StepError(
            f"`{' '.join(command)}` failed with status {done.returncode}. The last lines it printed:\n"
            f"{tail(log)}\nThe whole log: {log}"
        )


def tail(log: Path, lines: int = LOG_LINES_SHOWN) -> str:
    """The last `lines` lines of `log`, indented."""
    with log.open(encoding="utf-8", errors="replace") as source:
        return "\n".join(f"    {line.rstrip()}" for line in deque(source, maxlen=lines))


@contextmanager
def step(what: str, who: str = "setup") -> Iterator[None]:
    """Say on one line what is being done, and then how long it took."""
    print(f"{who}: {what} ...", end=" ", flush=True)
    start_s = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - start_s:.1f} s", flush=True)

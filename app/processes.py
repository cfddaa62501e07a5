"""Child processes that never outlive their parent, whatever ends it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Thread, current_thread, main_thread
from types import FrameType
from typing import IO

from app.errors import MissingProgram, SettingsError

_PR_SET_PDEATHSIG = 1
_TAIL_LINES = 40
OUR_MESSAGE = "stockflow: "
"""How the command line begins the one line that says what is wrong."""


def die_with_parent() -> None:
    """Ask Linux to send SIGTERM to this process when its parent dies; does nothing elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def ends_with_parent() -> list[str]:
    """What to put before a command, so that Linux ends it with its parent; nothing where there is no setpriv.

    A program of util-linux rather than `preexec_fn`, which is not safe in a process with threads.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


def last_error(lines: Iterable[str]) -> str:
    """The last telling line of what a program said: our own message where there is one."""
    said = list(lines)
    for line in reversed(said):
        if line.startswith(OUR_MESSAGE):
            return line.removeprefix(OUR_MESSAGE).strip()
    for line in reversed(said):
        if line.strip(" -=*\t"):
            return line.strip()
    return "no message"


def find_program(name: str, package: str) -> str:
    """Path of a system program; MissingProgram names the package to install."""
    path = shutil.which(name)
    if path is None:
        raise MissingProgram(name, package)
    return path


def find_java(environ: Mapping[str, str]) -> str:
    """Path of the Java runtime, JAVA_HOME's where that is set; MissingProgram when there is none."""
    home = environ.get("JAVA_HOME")
    if not home:
        return find_program("java", "openjdk-17-jre-headless")
    java = Path(home, "bin", "java")
    if not java.is_file():
        raise SettingsError(f"JAVA_HOME={home} holds no bin/java: unset it, or name a Java 17 runtime")
    return str(java)


class StopSignals:
    """Whether SIGTERM or SIGINT has come; a second one ends the program at once, as without this."""

    def __init__(self) -> None:
        self.asked = False
        self._number = 0

    def end(self) -> None:
        """End the program as the signal would have, if one has come."""
        if self._number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.asked:
            raise SystemExit(128 + self._number)

    def take(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.asked:
            self.end()
        self.asked, self._number = True, number


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Let the work inside end by itself when a signal comes, and the program after it.

    Only in the main thread, to which signals go. What the work raises after a signal, to others of its group too,
    says nothing.
    """
    stopped = StopSignals()
    numbers = (signal.SIGTERM, signal.SIGINT) if current_thread() is main_thread() else ()
    before = {number: signal.signal(number, stopped.take) for number in numbers}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stopped.end()


class Child:
    """A running program in a process group of its own.

    on_line: called with each line of its standard output, on_error with each of its standard error, both
    from a thread. The last lines of standard error are in `errors`.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        on_line: Callable[[str], None],
        on_error: Callable[[str], None] = lambda line: None,
        *,
        cwd: Path | None = None,
    ) -> None:
        self.errors: deque[str] = deque(maxlen=_TAIL_LINES)
        self._on_error = on_error
        self._process = subprocess.Popen(
            [*ends_with_parent(), *argv],
            env=dict(environ),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._readers = [
            Thread(target=self._read, args=(self._process.stdout, on_line), daemon=True),
            Thread(target=self._read, args=(self._process.stderr, self._keep_error), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Process id, which is the id of its group too."""
        return self._process.pid

    def poll(self) -> int | None:
        """Exit status, None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float | None = None, *, end_group: bool = False) -> int:
        """Exit status at the end; subprocess.TimeoutExpired when it runs on.

        end_group: kill what it left in its group, as a container does; else that may hold the output open.
        """
        status = self._process.wait(timeout_s)
        if end_group:
            self._signal(signal.SIGKILL)
        for reader in self._readers:
            reader.join(timeout=5)
        return status

    def stop(self, grace_s: float = 5.0) -> None:
        """SIGTERM to the whole group, SIGKILL to what is left of it after `grace_s`."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def last_error(self) -> str:
        """The last telling line of standard error: our own message where there is one."""
        return last_error(self.errors)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _keep_error(self, line: str) -> None:
        self.errors.append(line)
        self._on_error(line)

    @staticmethod
    def _read(stream: IO[str], on_line: Callable[[str], None]) -> None:
        with stream:
            for line in stream:
                on_line(line.rstrip("\n"))

"""`stockflow up` and `down`: the stack in a process that stays, and how other commands find it.

``python -m embedded.daemon FOLDER OPTIONS`` runs the stack until SIGTERM. FOLDER then holds `up.json`, which says
where everything is, and `up.log`; and `.lock`, which that process holds as long as it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from app.errors import StockflowError
from app.processes import OUR_MESSAGE, last_error
from embedded.local import Local, LocalOptions, check_machine, running

MARKER, LOG = "up.json", "up.log"
_READY_S = 120.0
_ENDS_WITHIN_S = 60.0
_LOOKS_EVERY_S = 0.5
_LOCK_TRIES = 20


class NotUp(StockflowError):
    """Nothing runs there."""

    exit_code = 10

    def __init__(self, folder: Path) -> None:
        super().__init__(f"nothing is up in {folder}: type `stockflow up`, or name another folder with --dir")
        self.folder = folder


class BadFolder(StockflowError):
    """The folder cannot be used."""

    exit_code = 10


class AlreadyUp(StockflowError):
    """Something runs there."""

    exit_code = 10

    def __init__(self, folder: Path) -> None:
        super().__init__(f"a stack is up in {folder}: type `stockflow down` first, or name another folder with --dir")
        self.folder = folder


def start_up(options: LocalOptions, folder: Path, environ: Mapping[str, str], say: Callable[[str], None]) -> Local:
    """Start the stack in a process of its own and wait until it is deployed. say: told what is being done."""
    check_machine(options, environ)
    with _open_log(folder) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "embedded.daemon", str(folder), _to_json(options)],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    say(f"starting: see {folder / LOG}")
    deadline = time.monotonic() + _READY_S
    try:
        while not (folder / MARKER).exists():
            if (status := process.poll()) is not None:
                raise _failed((folder / LOG).read_text(errors="replace"), status)
            if time.monotonic() > deadline:
                raise StockflowError(f"the stack was not up within {_READY_S:g} s: see {folder / LOG}")
            time.sleep(0.1)
    except BaseException:
        process.terminate()
        raise
    return attach(folder)


def attach(folder: Path) -> Local:
    """The stack that is up in a folder; NotUp when there is none."""
    said = _read_marker(folder)
    del said["pid"]
    return Local(**{**said, "tickers": tuple(said["tickers"])})


def bring_down(folder: Path) -> str:
    """End the stack; returns what was done, in words."""
    pid = _read_marker(folder)["pid"]
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        raise NotUp(folder) from None
    except PermissionError as exc:
        raise StockflowError(f"the stack in {folder} is another user's: process {pid} cannot be ended") from exc
    deadline = time.monotonic() + _ENDS_WITHIN_S
    while _is_held(folder):
        if time.monotonic() > deadline:
            raise StockflowError(f"process {pid} did not end within {_ENDS_WITHIN_S:g} s: see {folder / LOG}")
        time.sleep(0.1)
    return f"the stack in {folder} is down"


def main(folder_name: str, options_json: str) -> int:
    """Run the stack until SIGTERM or SIGINT."""
    folder, done = Path(folder_name), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    try:
        with _holding(folder), running(_from_json(options_json), os.environ, _say) as local:
            fresh = folder / f".{MARKER}"
            fresh.write_text(json.dumps({**asdict(local), "pid": os.getpid()}))
            fresh.rename(folder / MARKER)
            try:
                while not done.wait(_LOOKS_EVERY_S):
                    if _has_ended(local.aws_pid):
                        raise StockflowError(f"the embedded AWS, process {local.aws_pid}, has died: so does the stack")
            finally:
                (folder / MARKER).unlink(missing_ok=True)
    except StockflowError as exc:
        _say(f"{OUR_MESSAGE}{exc}")
        return exc.exit_code
    return 0


@contextlib.contextmanager
def _holding(folder: Path) -> Iterator[None]:
    """One stack a folder."""
    with (folder / ".lock").open("w") as lock:
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)  # somebody may only be looking
        else:
            raise AlreadyUp(folder)
        (folder / MARKER).unlink(missing_ok=True)  # of one that was killed
        yield


def _is_held(folder: Path) -> bool:
    """Whether a stack runs there, wherever in its life it is."""
    try:
        with (folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _open_log(folder: Path) -> IO[bytes]:
    """A new log in a folder where nothing is up; AlreadyUp otherwise."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _holding(folder):
            return (folder / LOG).open("wb")
    except OSError as exc:
        raise BadFolder(f"{folder} cannot be written ({exc.strerror}): name another folder with --dir") from exc


def _read_marker(folder: Path) -> dict[str, Any]:
    """What the stack that is up says of itself. A process id is worth something only as long as the lock is held."""
    try:
        if not _is_held(folder):
            raise NotUp(folder)
        said: dict[str, Any] = json.loads((folder / MARKER).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise NotUp(folder) from None
    except OSError as exc:
        raise BadFolder(f"{folder} cannot be read ({exc.strerror}): name another folder with --dir") from exc
    return said


def _has_ended(child: int) -> bool:
    """Whether a child of this process has; who started it will be told its status all the same."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _failed(log: str, status: int) -> StockflowError:
    error = StockflowError(last_error(log.splitlines()))
    error.exit_code = status if status > 0 else 1
    return error


def _to_json(options: LocalOptions) -> str:
    state = str(options.state) if options.state else None
    return json.dumps({**asdict(options), "state": state})


def _from_json(text: str) -> LocalOptions:
    said: dict[str, Any] = json.loads(text)
    universe, state = said["universe"], said["state"]
    return LocalOptions(
        **{
            **said,
            "universe": tuple(universe) if universe else None,
            "yahoo_flags": tuple(said["yahoo_flags"]),
            "state": Path(state) if state else None,
        }
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Children end when they should: with their parent, with their group, and with a telling last word."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import MissingProgram
from app.processes import Child, find_program

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
NESTED = f"""
import subprocess, sys
inner = subprocess.Popen([sys.executable, "-S", "-c", {STUBBORN!r}])
print(inner.pid, flush=True)
inner.wait()
"""
OWN_ID = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
PARENT = f"""
import os, sys, time
from app.processes import Child
child = Child([sys.executable, "-S", "-c", {OWN_ID!r}], os.environ, lambda line: print(line, flush=True))
time.sleep(60)
"""


def until(condition: Callable[[], bool], limit_s: float = 10.0) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def python(code: str, lines: list[str] | None = None) -> Child:
    return Child([sys.executable, "-S", "-c", code], os.environ, (lines if lines is not None else []).append)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_child_is_gone_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            assert not gone(child)
        finally:
            parent.send_signal(signal.SIGKILL)
    assert until(lambda: gone(child))


def test_stop_ends_the_whole_group_even_what_ignores_the_request() -> None:
    lines: list[str] = []
    child = python(NESTED, lines)
    assert until(lambda: len(lines) == 2)  # its own id, and that it is up
    grandchild = int(next(line for line in lines if line.isdigit()))
    child.stop(grace_s=0.2)
    assert child.poll() == -signal.SIGTERM
    assert until(lambda: gone(grandchild))


def test_stop_kills_a_child_that_ignores_the_request() -> None:
    lines: list[str] = []
    child = python(STUBBORN, lines)
    assert until(lambda: lines == ["up"])
    child.stop(grace_s=0.1)
    assert child.poll() == -signal.SIGKILL
    child.stop()  # a second time does no harm


def test_lines_arrive_and_the_status_is_the_childs() -> None:
    lines: list[str] = []
    child = python("import sys; print('one'); print('zwei \\u20ac'); sys.exit(3)", lines)
    assert child.wait(10) == 3
    assert (lines, child.poll()) == (["one", "zwei €"], 3)


def test_waiting_has_a_limit() -> None:
    child = python(SLEEP)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.05)
    child.stop(0.5)


def test_the_last_telling_line_of_standard_error_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    child = python("import sys; sys.stderr.write('first\\nValueError: the reason  \\n-----\\n\\n'); sys.exit(1)")
    child.wait(10)
    assert child.last_error() == "ValueError: the reason"
    assert capfd.readouterr().err == ""


def test_a_silent_child_has_no_message_and_only_the_last_lines_are_kept() -> None:
    silent = python("")
    silent.wait(10)
    assert silent.last_error() == "no message"
    talkative = python("import sys; [print(i, file=sys.stderr) for i in range(100)]")
    talkative.wait(10)
    assert list(talkative.errors) == [str(i) for i in range(60, 100)]


def test_a_program_is_found_or_its_package_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mpirun"
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("mpirun", "openmpi-bin") == str(program)
    with pytest.raises(MissingProgram, match="java is not installed or not on PATH: type `apt-get install jre`"):
        find_program("java", "jre")

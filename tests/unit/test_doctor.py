"""`stockflow doctor`: each finding with what to do, whatever the programs on PATH and the network come up with."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app import contract
from app.cli import main
from app.doctor import account, programs, room
from app.doctor.check import Check, Finding, Result, examine, failure, good, output_of, warning
from app.doctor.horovod import check_horovod
from app.doctor.machine import machine_checks
from app.doctor.run import row
from app.errors import MissingProgram, SettingsError
from infra.context import load, written_context

ROOT = Path(__file__).parents[2]
GIB, MIB = 1 << 30, 1 << 20
LIMIT_S = 1.0
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all there is on PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("JAVA_HOME", "CXX", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return folder


def put(folder: Path, name: str, script: str) -> str:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def prints(text: str, status: int = 0) -> str:
    return f"echo '{text}' >&2\nexit {status}"


HANGS = "/bin/sleep 600"
"""A child of the shell, which keeps the output open when the shell alone is killed."""


def check(name: str) -> Check:
    """A check of this machine, with little patience."""
    return replace({one.name: one for one in machine_checks(os.environ)}[name], limit_s=LIMIT_S)


def found(name: str) -> Finding:
    (result,) = examine([check(name)])
    return result.finding


# --- all at once --------------------------------------------------------------------------------------


def after(seconds: float) -> Callable[[float], Finding]:
    """What finds nothing but takes its time."""

    def ask(limit_s: float) -> Finding:
        time.sleep(seconds)
        return good(f"{seconds:g}")

    return ask


def test_checks_are_told_as_they_end() -> None:
    checks = [Check(name, 10, after(seconds), "") for name, seconds in [("slow", 0.4), ("quick", 0.0), ("mid", 0.2)]]
    results = list(examine(checks))
    assert [result.name for result in results] == ["quick", "mid", "slow"]
    assert 0.4 <= results[-1].seconds < 5


def test_a_check_that_hangs_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.doctor.check._GRACE_S", 0.1)
    hung, patient = Check("hung", 0.2, after(3), "end it"), Check("patient", 5, after(0.5), "")
    started = time.monotonic()
    results = {result.name: result.finding for result in examine([hung, patient])}
    assert time.monotonic() - started < 2
    assert results == {"hung": failure("no answer within 0.2 s", "end it"), "patient": good("0.5")}


def test_what_a_check_raises_is_a_finding() -> None:
    def raising(error: Exception) -> Finding:
        def ask(limit_s: float) -> Finding:
            raise error

        (result,) = examine([Check("c", 5, ask, "overdue")])
        return result.finding

    assert raising(ZeroDivisionError("a bug")) == failure(
        "could not be checked (ZeroDivisionError: a bug)", "try again; what stays is a bug"
    )
    told = raising(MissingProgram("mpirun", "openmpi-bin"))
    assert told == failure("mpirun is not installed or not on PATH", "type `apt-get install openmpi-bin`")
    assert raising(SettingsError("all wrong")) == failure("all wrong", "")
    assert raising(subprocess.TimeoutExpired("java", 5)) == failure("no answer within 5 s", "overdue")


def test_a_program_s_children_do_not_hold_it_up(path: Path) -> None:
    program = put(path, "hangs", HANGS)
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        output_of([program], os.environ, 0.3)
    assert time.monotonic() - started < 5
    leaves = put(path, "leaves", f"{HANGS} &\necho done")
    assert output_of([leaves], os.environ, 5) == (0, ["done"])
    assert time.monotonic() - started < 8


# --- programs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(3, 11, 2), (3, 12, 9)])
def test_pythons_that_packages_are_there_for(version: tuple[int, ...]) -> None:
    assert programs.check_python(version).status == "ok"


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 13, 0)])
def test_other_pythons_fail(version: tuple[int, ...]) -> None:
    finding = programs.check_python(version)
    assert finding.status == "failure"
    assert "make setup" in finding.todo


def test_a_missing_package_is_named_with_its_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    assert programs.check_packages().status == "ok"
    monkeypatch.setattr(programs, "PACKAGES", {"train": ("json", "no_such_one"), "serve": ("nor_this",)})
    assert programs.check_packages() == failure(
        "not installed: no_such_one (train); nor_this (serve)", "type `make setup`"
    )


def test_settings_are_those_that_commands_would_take(tmp_path: Path) -> None:
    assert programs.check_settings({contract.ENV_SETTINGS_FILE: ""}) == good("the defaults")
    file = tmp_path / "a.toml"
    file.write_text("[training]\nepochs = 8\n")
    environ = {contract.ENV_SETTINGS_FILE: str(file)}
    assert programs.check_settings(environ) == good("changed: training.epochs=8")
    file.write_text("[training]\nepochs = 0\n")
    finding = programs.check_settings(environ)
    assert finding.status == "failure"
    assert finding.found.startswith(f"{file}: setting training.epochs=0: input should be greater than or equal to 1")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ('openjdk version "17.0.15" 2025-04-15', "ok"),
        ('openjdk version "21" 2023-09-19', "ok"),
        ('openjdk version "24.0.1" 2025-04-15', "warning"),
        ('openjdk version "11.0.2" 2019-01-15', "failure"),
        ('java version "1.8.0_392"', "failure"),
        ("something else", "failure"),
    ],
)
def test_java_is_judged_by_what_it_says(path: Path, said: str, status: str) -> None:
    java = put(path, "java", prints(said))
    finding = found("Java")
    assert (finding.status, bool(finding.todo)) == (status, status != "ok")
    assert java in finding.found
    assert "17" in finding.todo or status == "ok"


def test_java_that_is_not_there_breaks_or_hangs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found("Java").todo == "type `apt-get install openjdk-17-jre-headless`"
    java = put(path, "java", prints("Error: could not find libjava.so", 2))
    finding = found("Java")
    assert finding.found == f"{java} does not run: Error: could not find libjava.so"
    assert re.fullmatch(r"type `(sudo )?apt-get install -y openjdk-17-jre-headless`", finding.todo)
    put(path, "java", HANGS)
    assert found("Java") == failure("no answer within 1 s", "`java -version` hangs: set JAVA_HOME to a Java 17")
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    assert found("Java") == failure("JAVA_HOME=/nowhere holds no bin/java", "unset it, or name a Java 17 runtime")


def test_a_program_that_is_no_program_is_a_finding(path: Path) -> None:
    (path / "java").write_bytes(b"\x7fELF nonsense")
    (path / "java").chmod(0o755)
    finding = found("Java")
    assert finding.status == "failure"
    assert finding.todo


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("mpirun (Open MPI) 4.1.4", "ok"),
        ("mpirun (Open MPI) 5.0.3", "failure"),
        ("HYDRA build details: Version: 4.0", "failure"),
    ],
)
def test_open_mpi_is_judged_by_its_version(path: Path, said: str, status: str) -> None:
    put(path, "mpirun", prints(said))
    finding = found("Open MPI")
    assert finding.status == status
    assert "apt-get install -y openmpi-bin" in finding.todo or status == "ok"


def test_open_mpi_that_is_not_there_or_hangs(path: Path) -> None:
    assert found("Open MPI").todo == "type `apt-get install openmpi-bin`"
    put(path, "mpirun", HANGS)
    assert found("Open MPI").found == "no answer within 1 s"


def test_without_a_compiler_training_is_slower_but_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = found("C++ compiler")
    assert (finding.status, finding.found) == ("warning", "no g++ on PATH")
    assert finding.todo.startswith("training takes XLA instead, which is slower on a CPU: type `")
    compiler = put(path, "g++", prints("lstm.cpp:3: fatal error: immintrin.h: No such file", 1))
    assert found("C++ compiler").found == (
        f"{compiler} does not compile lstm.cpp: lstm.cpp:3: fatal error: immintrin.h: No such file"
    )
    put(path, "g++", "exit 0")
    assert found("C++ compiler") == good(f"{compiler} compiles the native LSTM")
    put(path, "g++", HANGS)
    assert found("C++ compiler") == failure("no answer within 1 s", "set CXX to a compiler that works")
    monkeypatch.setenv("CXX", "clang++")
    assert found("C++ compiler").found == "no clang++ on PATH"


# --- Horovod, with an mpirun that is none ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'a warning'\necho '{\"ranks\": 2, \"sum\": 3.0}'", "an allreduce over 2 ranks is right"),
        ('echo \'{"ranks": 1, "sum": 1.0}\'', "gave {'ranks': 1, 'sum': 1.0}"),
        ("exit 0", "an allreduce over 2 ranks of 1 and 2 gave nothing"),
        (
            prints("rank 1: ImportError: libmpi.so.40: cannot open shared object file", 1),
            "the ranks ended with status 1: rank 1: ImportError: libmpi.so.40: cannot open shared object file",
        ),
        (prints("There are not enough slots", 1), "the ranks ended with status 1: There are not enough slots"),
        ("kill -9 $$", "the ranks ended with status -9: no message"),
    ],
)
def test_horovod_is_judged_by_what_its_ranks_say(path: Path, script: str, expected: str) -> None:
    put(path, "mpirun", script)
    finding = check_horovod(os.environ, 10)
    assert expected in finding.found
    assert (finding.status == "ok") == finding.found.endswith("is right")
    assert finding.status == "ok" or "make setup" in finding.todo


def test_ranks_that_hang_are_ended(path: Path, tmp_path: Path) -> None:
    put(path, "mpirun", f"echo $$ > {tmp_path}/pid\n{HANGS}")
    finding = found("Horovod")
    assert finding.found == "no answer within 1 s"
    assert "mpirun -np 2 hostname" in finding.todo
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while alive := living_of_group(pid):
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def living_of_group(pid: int) -> list[str]:
    """The processes of a group, but for those that are dead and only not buried."""
    stats = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            stats.append(file.read_text())
    states = [stat.rpartition(")")[2].split()[:3] for stat in stats]  # state, parent, group
    return [stat for stat, (state, _, group) in zip(stats, states, strict=True) if int(group) == pid and state != "Z"]


# --- ports, room, folders -------------------------------------------------------------------------------


def test_ports_that_are_taken_are_named(taken_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PORTS", {})
    assert room.check_ports().status == "ok"
    monkeypatch.setattr(room, "PORTS", {taken_port: "stockflow dashboard --port 0"})
    assert room.check_ports() == warning(
        f"127.0.0.1 has free ports, but in use are {taken_port}",
        "take a free one where you need it: `stockflow dashboard --port 0`",
    )


def test_without_loopback_nothing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_HOST", "203.0.113.1")  # of no machine: reserved for documentation
    assert room.check_ports().status == "failure"


@pytest.mark.parametrize(
    ("free", "status"), [(10 * GIB, "ok"), (3 * GIB, "ok"), (3 * GIB - 1, "warning"), (GIB - 1, "failure")]
)
def test_room_on_the_disk(free: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free))
    finding = room.check_disk()
    assert (finding.status, bool(finding.todo)) == (status, status != "ok")


def machine(root: Path, available: int, **files: str) -> Path:
    """A root of a file system that says how much memory is free."""
    every = {"proc/meminfo": f"MemTotal: 1 kB\nMemAvailable:   {available // 1024} kB\n", **files}
    for name, text in every.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_memory_is_the_least_that_any_limit_leaves(tmp_path: Path) -> None:
    assert room.free_memory(machine(tmp_path / "a", 8 * GIB)) == 8 * GIB
    nested = machine(
        tmp_path / "b",
        8 * GIB,
        proc__self__cgroup="0::/pod/box\n",
        sys__fs__cgroup__pod__box__memory__max="x",
    )
    group = nested / "sys/fs/cgroup/pod"
    (group / "box/memory.max").write_text("max\n")
    (group / "memory.max").write_text(f"{6 * GIB}\n")
    (group / "memory.current").write_text(f"{5 * GIB}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {2 * GIB}\nactive_file 7\n")
    assert room.free_memory(nested) == 3 * GIB
    old = machine(tmp_path / "c", 8 * GIB, proc__self__cgroup="4:memory:/docker/x\n")
    group = old / "sys/fs/cgroup/memory"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text(f"{4 * GIB}\n")
    (group / "memory.usage_in_bytes").write_text(f"{GIB}\n")
    assert room.free_memory(old) == 3 * GIB
    (group / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert room.free_memory(old) == 8 * GIB


@pytest.mark.parametrize(("available", "status"), [(4 * GIB, "ok"), (3 * GIB, "warning"), (GIB, "failure")])
def test_memory_is_judged(tmp_path: Path, available: int, status: str) -> None:
    finding = room.check_memory(machine(tmp_path, available))
    assert (finding.status, "stockflow run --sim tickers=10" in finding.todo) == (status, status != "ok")


def test_memory_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    assert room.check_memory(tmp_path).status == "warning"


def test_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert room.check_shm(tmp_path / "none").status == "failure"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 63 * MIB))
    assert room.check_shm(tmp_path).found == "63 MiB free"
    assert "--shm-size=1g" in room.check_shm(tmp_path).todo
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 64 * MIB))
    assert room.check_shm(tmp_path) == good("64 MiB free")


def test_folders_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    assert room.check_folders({"HOME": "/proc", "STOCKFLOW_CACHE_DIR": "/tmp"}).status == "ok"  # noqa: S108
    finding = room.check_folders({"HOME": "/proc"})  # root can write nearly everywhere, but not there
    assert (finding.status, finding.found.partition(":")[0]) == ("warning", "/proc/.cache cannot be written")
    monkeypatch.setattr(room, "BUILD", Path("/proc/build"))
    assert room.check_folders({"HOME": "/proc"}).status == "failure"


# --- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def doctor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[Any, str, str]]]:
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["stockflow", "doctor", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return (caught.value.code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, before)


def fit(path: Path) -> None:
    """Programs on PATH that say what they should."""
    put(path, "java", prints('openjdk version "17.0.15"'))
    said = '[ "$1" = --version ] && echo "mpirun (Open MPI) 4.1.4" || echo \'{"ranks": 2, "sum": 3.0}\''
    put(path, "mpirun", said)
    put(path, "g++", "exit 0")


def test_where_nothing_fails_the_status_is_0(path: Path, doctor: Callable[..., Any]) -> None:
    fit(path)
    status, out, err = doctor()
    assert (status, err) == (0, "")
    names = [check.name for check in machine_checks({})]
    assert {line[9:27].strip() for line in out.splitlines() if not line.startswith(" ")} == set(names)
    assert set(re.findall(r"^(\w+)", out, re.MULTILINE)) <= {"ok", "warning"}


def test_failures_are_told_with_what_to_do_and_a_status(path: Path, doctor: Callable[..., Any]) -> None:
    fit(path)
    (path / "java").unlink()
    status, out, err = doctor()
    assert status == 12
    assert err == "stockflow: 1 of 12 checks failed (Java): what to do stands with each\n"
    lines = [line.rstrip() for line in out.splitlines()]
    at = lines.index("failure  Java              java is not installed or not on PATH")
    assert lines[at + 1] == f"{'':27}-> type `apt-get install openjdk-17-jre-headless`"


def test_programs_get_one_json_object(path: Path, doctor: Callable[..., Any]) -> None:
    fit(path)
    put(path, "java", prints('openjdk version "24"'))
    (path / "g++").unlink()
    put(path, "mpirun", prints("mpirun (Open MPI) 5.0.3"))
    status, out, _ = doctor("--json")
    said = json.loads(out)
    assert (status, said["status"]) == (12, "failure")
    by_name = {check["name"]: check for check in said["checks"]}
    assert set(by_name) == {check.name for check in machine_checks({})}
    assert all(set(check) == {"name", "status", "found", "todo", "seconds"} for check in said["checks"])
    statuses = {name: by_name[name]["status"] for name in ("Java", "C++ compiler", "Open MPI", "Horovod")}
    assert statuses == {"Java": "warning", "C++ compiler": "warning", "Open MPI": "failure", "Horovod": "failure"}


def test_without_a_network_the_account_s_checks_fail_and_nothing_else(
    path: Path, doctor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(path)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but nobody listens
        monkeypatch.setenv(contract.ENV_AWS_ENDPOINT_URL, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        status, out, err = doctor("--aws", "--json")
    assert status == 12
    assert err == "stockflow: 1 of 15 checks failed (AWS credentials): what to do stands with each\n"
    told = next(check for check in json.loads(out)["checks"] if check["name"] == "AWS credentials")
    assert told["found"].startswith('Could not connect to the endpoint URL: "http://127.0.0.1:')
    assert told["todo"].startswith("see that this machine reaches AWS")


def test_a_long_finding_stays_within_its_column() -> None:
    from rich.console import Console

    console = Console(width=60, highlight=False)
    with console.capture() as captured:
        console.print(row(Result("Java", failure("[bold]" + "found " * 12, "do " * 20), 0.1)))
    lines = captured.get().splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert lines[0].startswith("failure  Java              [bold]found")
    assert all(line.startswith(" " * 27) for line in lines[1:])


def test_the_first_line_comes_within_two_seconds_whatever_hangs(path: Path) -> None:
    fit(path)
    for name in ("java", "mpirun", "g++"):
        put(path, name, HANGS)
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "doctor"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        started = time.monotonic()
        assert process.stdout.readline().startswith(("ok ", "warning "))
        assert time.monotonic() - started < 2
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (process.returncode, err.strip()) == (130, "stockflow: interrupted")


def test_every_check_is_documented() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text().partition("| check |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(.+?)` \|.*\| (\d+) s \|$", text, re.MULTILINE)
    deployment = {"ingestion": {"instance_type": "m6i.2xlarge", "spot": True}, "batch_training": {"nodes": 1}}
    quotas = [f"{quota.label} quota" for quota in account.quotas(load(written_context() | deployment))]
    checks = [*machine_checks({}), *account.context_checks({}, lambda service: None)]
    limits = {check.name: check.limit_s for check in [*checks, *account.account_checks(lambda service: None)]}
    assert [name for name, _ in rows] == [*[check.name for check in checks], "CDK bootstrap", *quotas]
    assert all(limits.get(name, 90) == float(limit) for name, limit in rows)

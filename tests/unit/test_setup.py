"""The set-up scripts: what they choose, what they say, and when they do their work again. No network, no real build."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
CMAKE_LISTS = """\
# TF SOURCES
list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/mpi_ops.cc")
list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")

# Create library
set_output_dir()
"""
BEFORE = "add_definitions(-DTENSORFLOW_VERSION=${VERSION_DEC})\nset(A PARENT_SCOPE)\nset(B PARENT_SCOPE)\n\n"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a script as the system's python3 would see it: beside its neighbours."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module(name)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("shell", monkeypatch)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("machine", monkeypatch)


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("setup", monkeypatch)


@pytest.fixture
def build_horovod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    module = load("build_horovod", monkeypatch)
    monkeypatch.setattr(module, "LOG", tmp_path / "horovod.log")
    return module


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all there is on PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


def put_program(folder: Path, name: str, prints: str = "", status: int = 0) -> None:
    """A program `name` that prints `prints` whatever it is asked."""
    path = folder / name
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' '{prints}'\nexit {status}\n", encoding="utf-8")
    path.chmod(0o755)


def put_python(folder: Path, name: str, version: str) -> None:
    """A Python that answers the set-up's question about its place and version."""
    put_program(folder, name, "\n".join([str(folder / name), *version.split(".")]))


def test_the_newest_usable_python_on_path_is_chosen(machine: ModuleType, programs: Path) -> None:
    put_python(programs, "python3", "3.11.2")
    put_python(programs, "python3.11", "3.11.9")
    assert machine.choose_interpreter() == machine.Interpreter(str(programs / "python3.11"), (3, 11, 9))
    put_python(programs, "python3.12", "3.12.1")
    assert machine.choose_interpreter().version == (3, 12, 1)


def test_a_python_that_does_not_run_or_is_too_new_is_passed_over(machine: ModuleType, programs: Path) -> None:
    put_program(programs, "python3.12", "no such version", status=127)
    put_python(programs, "python3.11", "3.13.0")
    put_python(programs, "python3", "3.11.2")
    assert machine.choose_interpreter().version == (3, 11, 2)


def test_a_requested_python_wins_and_its_wrong_version_is_an_error(machine: ModuleType, programs: Path) -> None:
    put_python(programs, "python3.12", "3.12.1")
    put_python(programs, "mine", "3.11.5")
    put_python(programs, "old", "3.10.1")
    assert machine.choose_interpreter("mine").version == (3, 11, 5)
    with pytest.raises(machine.StepError, match=r"old is Python 3\.10\.1"):
        machine.choose_interpreter("old")
    with pytest.raises(machine.StepError, match="gone does not start"):
        machine.choose_interpreter("gone")


def test_without_a_usable_python_the_error_says_what_to_install(machine: ModuleType, programs: Path) -> None:
    with pytest.raises(machine.StepError, match=r"none is on PATH.*apt-get install python3\.11"):
        machine.choose_interpreter()


@pytest.mark.parametrize(
    ("program", "prints", "problem"),
    [
        ("mpirun", "mpirun (Open MPI) 4.1.4", ""),
        ("mpirun", "mpirun (Open MPI) 5.0.3", "mpirun is of Open MPI 5.0.3"),
        ("mpirun", "HYDRA build details: 4.1", "mpirun is not Open MPI's"),
        ("java", 'openjdk version "17.0.15" 2025-04-15', ""),
        ("java", 'openjdk version "11.0.2"', "java is version 11"),
        ("java", 'java version "1.8.0_402"', "java is version 1"),
    ],
)
def test_a_program_of_a_wrong_version_counts_as_lacking(
    machine: ModuleType, programs: Path, program: str, prints: str, problem: str
) -> None:
    checks = {"mpirun": machine.open_mpi_problem, "java": machine.java_problem}
    assert checks[program]() == f"no {program} on PATH"
    put_program(programs, program, prints)
    assert checks[program]() == problem


def test_a_plain_user_is_told_all_that_lacks_and_the_one_command(
    machine: ModuleType, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_program(programs, "apt-get")
    put_program(programs, "sudo", "sudo: a password is required", status=1)
    put_program(programs, "mpirun", "mpirun (Open MPI) 4.1.4")
    for program in ("make", "git", "g++", "openssl"):
        put_program(programs, program)
    put_program(programs, "python-without-ensurepip", status=1)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    interpreter = machine.Interpreter(str(programs / "python-without-ensurepip"), (3, 11, 2))
    with pytest.raises(machine.StepError) as caught:
        machine.install_programs(machine.system_needs(interpreter, with_venv=True), tmp_path / "apt.log")
    assert str(caught.value) == (
        "this machine lacks\n"
        "  - Open MPI's headers (no mpicxx on PATH)\n"
        "  - Java 17 or newer (no java on PATH)\n"
        "  - Python's venv and ensurepip (no ensurepip)\n"
        "Only root can install them. Type\n"
        "  sudo apt-get update && sudo apt-get install -y --no-install-recommends"
        " libopenmpi-dev openjdk-17-jre-headless python3.11-venv\n"
        "then run make again."
    )
    assert not (tmp_path / "apt.log").exists()


def test_root_installs_only_what_lacks(
    machine: ModuleType, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (programs / "env").symlink_to("/usr/bin/env")
    said = tmp_path / "said"
    script = f'#!/bin/sh\necho "$DEBIAN_FRONTEND $*" >> {said}\ncase "$*" in *install*) : > {programs}/g++; esac\n'
    (programs / "apt-get").write_text(script, encoding="utf-8")
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    here = machine.Need("a C++ compiler", ("g++",), lambda: "" if (programs / "g++").exists() else "not there")
    other = machine.Need("git", ("git",), lambda: "")
    machine.install_programs([here, other], tmp_path / "apt.log")
    assert said.read_text().splitlines() == [
        "noninteractive -o DPkg::Lock::Timeout=300 update",
        "noninteractive -o DPkg::Lock::Timeout=300 install -y --no-install-recommends g++",
    ]


def test_a_program_that_still_lacks_after_its_install_is_an_error(
    machine: ModuleType, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (programs / "env").symlink_to("/usr/bin/env")
    put_program(programs, "apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    need = machine.Need("Java 17 or newer", ("openjdk-17-jre-headless",), lambda: "JAVA_HOME=/old is version 11")
    with pytest.raises(machine.StepError, match="JAVA_HOME=/old is version 11"):
        machine.install_programs([need], tmp_path / "apt.log")


def test_a_browser_that_is_there_is_not_installed(setup: ModuleType, programs: Path, tmp_path: Path) -> None:
    put_program(programs, "google-chrome")
    setup.provide_browser(tmp_path)
    assert not (tmp_path / "build").exists()


def test_a_browser_that_cannot_be_had_is_no_error(
    setup: ModuleType,
    programs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_program(programs, "apt-get", "no network", status=100)
    put_program(programs, "sudo", "sudo: a password is required", status=1)
    for user in (0, 1000):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        setup.provide_browser(tmp_path)
        assert "without Chromium the tests of the dashboard's page are skipped" in capsys.readouterr().out


def test_a_failed_command_shows_the_end_of_its_log_and_where_the_log_lies(shell: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    with pytest.raises(shell.StepError) as caught:
        shell.run_logged(["sh", "-c", "for i in $(seq 40); do echo line $i; done; exit 3"], log, cwd=tmp_path)
    message = str(caught.value)
    assert "failed with status 3" in message
    assert "    line 11\n" in message
    assert "    line 10\n" not in message
    assert message.endswith(f"The whole log: {log}")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The least of a checkout that the fingerprint reads."""
    root = tmp_path / "checkout"
    (root / "scripts" / "patches").mkdir(parents=True)
    for name in ("uv.lock", "pyproject.toml", "scripts/setup.py", "scripts/patches/a.patch"):
        (root / name).write_text(f"{name}\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("name", ["uv.lock", "pyproject.toml", "scripts/setup.py", "scripts/patches/a.patch"])
def test_the_fingerprint_changes_with_every_file_that_decides_the_set_up(
    setup: ModuleType, checkout: Path, name: str
) -> None:
    before = setup.fingerprint(checkout, "3.11.2", "4.1.4")
    (checkout / name).write_text("other\n", encoding="utf-8")
    assert setup.fingerprint(checkout, "3.11.2", "4.1.4") != before


def test_the_fingerprint_changes_with_its_facts_and_not_with_compiled_files(setup: ModuleType, checkout: Path) -> None:
    before = setup.fingerprint(checkout, "3.11.2", "4.1.4")
    (checkout / "scripts" / "__pycache__").mkdir()
    (checkout / "scripts" / "__pycache__" / "setup.cpython-311.pyc").write_bytes(b"x")
    assert setup.fingerprint(checkout, "3.11.2", "4.1.4") == before
    assert setup.fingerprint(checkout, "3.11.3", "4.1.4") != before
    assert setup.fingerprint(checkout, "3.11.2", "4.1.6") != before


@pytest.fixture
def stamped(setup: ModuleType, checkout: Path, programs: Path) -> Path:
    """A checkout whose set-up is done."""
    put_program(programs, "mpirun", "mpirun (Open MPI) 4.1.4")
    library = checkout / ".venv/lib/python3.11/site-packages/horovod/tensorflow/mpi_lib.cpython-311.so"
    for path in (checkout / ".venv/bin/python", checkout / ".venv/bin/stockflow", setup.tool_uv(checkout), library):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    interpreter = sys.modules["machine"].Interpreter("/usr/bin/python3.11", (3, 11, 2))
    setup.write_stamp(checkout, "", interpreter)
    assert setup.is_current(checkout, "")
    return checkout


def test_a_stamp_does_not_hold_for_another_requested_python(setup: ModuleType, stamped: Path) -> None:
    assert not setup.is_current(stamped, "python3.12")


def test_a_stamp_does_not_hold_once_the_lock_changes(setup: ModuleType, stamped: Path) -> None:
    (stamped / "uv.lock").write_text("other\n", encoding="utf-8")
    assert not setup.is_current(stamped, "")


def test_a_stamp_does_not_hold_once_open_mpi_changes(setup: ModuleType, stamped: Path, programs: Path) -> None:
    put_program(programs, "mpirun", "mpirun (Open MPI) 4.1.6")
    assert not setup.is_current(stamped, "")


@pytest.mark.parametrize("lost", [".venv", ".venv/lib/python3.11/site-packages/horovod", "build/tools"])
def test_a_stamp_does_not_hold_once_what_it_names_is_gone(setup: ModuleType, stamped: Path, lost: str) -> None:
    shutil.rmtree(stamped / lost)
    assert not setup.is_current(stamped, "")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"files": [], "interpreter": "x"}'])
def test_a_damaged_stamp_counts_as_none(setup: ModuleType, stamped: Path, content: str) -> None:
    setup.stamp_path(stamped).write_text(content, encoding="utf-8")
    assert not setup.is_current(stamped, "")


def test_only_a_uv_of_the_pinned_version_is_used(setup: ModuleType, checkout: Path, programs: Path) -> None:
    (checkout / "scripts" / "uv-requirements.txt").write_text("# note\nuv==1.2.3 \\\n    --hash=sha256:0\n")
    put_program(programs, "uv", "uv 1.2.4")
    assert setup.find_uv(checkout) is None
    put_program(programs, "uv", "uv 1.2.3 (abc 2026-01-01)")
    assert setup.find_uv(checkout) == programs / "uv"


def test_the_committed_requirements_pin_every_package_with_hashes(setup: ModuleType) -> None:
    assert setup.pinned_uv(SCRIPTS.parent)
    for name in ("uv-requirements.txt", "horovod-build-requirements.txt"):
        lines = [line for line in (SCRIPTS / name).read_text().splitlines() if line and not line.startswith("#")]
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            pinned = "==" in line and following.startswith("    --hash=sha256:")
            assert pinned or line.startswith("    --hash=sha256:"), line


def test_the_cache_key_changes_with_each_ingredient(build_horovod: ModuleType) -> None:
    ingredients = {
        "sdist_sha256": "a",
        "patch_sha256": "b",
        "tensorflow": "2.21.0",
        "open_mpi": "4.1.4",
        "python_abi": "cpython-311-x86_64-linux-gnu",
        "machine": "x86_64",
        "gpu": "NCCL, CUDA 12.9, 75",
    }
    key = build_horovod.WheelKey(**ingredients)
    folders = {key.folder} | {replace(key, **{name: f"{value}x"}).folder for name, value in ingredients.items()}
    assert len(folders) == 1 + len(ingredients)


def test_a_build_for_gpus_takes_nccl_and_a_second_patch(
    build_horovod: ModuleType, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(build_horovod.StepError, match="no nvcc on PATH"):
        build_horovod.find_gpu("75,90")
    put_program(programs, "nvcc", "Cuda compilation tools, release 12.9, V12.9.86")
    put_program(programs, "mpirun", "mpirun (Open MPI) 4.1.8")
    monkeypatch.setattr(build_horovod, "tensorflow_version", lambda: "2.21.0")
    gpu = build_horovod.find_gpu("75,90")
    assert gpu == build_horovod.Gpu("12.9", "75,90")
    assert gpu.options["HOROVOD_GPU_OPERATIONS"] == "NCCL"
    assert gpu.options["HOROVOD_BUILD_CUDA_CC_LIST"] == "75,90"
    assert set(build_horovod.patches_for(gpu)) - set(build_horovod.patches_for(None)) == {build_horovod.GPU_PATCH}
    with_gpu, without = build_horovod.current_key(gpu), build_horovod.current_key()
    assert with_gpu.patch_sha256 != without.patch_sha256
    assert without.gpu == ""


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"STOCKFLOW_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/stockflow"),
        ({"STOCKFLOW_CACHE_DIR": "", "XDG_CACHE_HOME": ""}, str(Path.home() / ".cache" / "stockflow")),
    ],
)
def test_the_cache_lies_where_the_user_wants_it(
    build_horovod: ModuleType, environ: dict[str, str], expected: str
) -> None:
    assert build_horovod.cache_root(environ) == Path(expected)


def put_source(folder: Path, text: str) -> Path:
    """A folder that holds only the one file that the patch is for."""
    source = folder / "horovod-0.28.1"
    (source / "horovod" / "tensorflow").mkdir(parents=True)
    (source / "horovod" / "tensorflow" / "CMakeLists.txt").write_text(text, encoding="utf-8")
    return source


@pytest.mark.parametrize("in_repository", [False, True])
def test_the_patch_takes_out_the_one_line(build_horovod: ModuleType, tmp_path: Path, in_repository: bool) -> None:
    if in_repository:
        (tmp_path / ".git" / "objects").mkdir(parents=True)
        (tmp_path / ".git" / "refs").mkdir()
        (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
    source = put_source(tmp_path, BEFORE + CMAKE_LISTS)
    build_horovod.apply_patch(build_horovod.PATCH, source)
    left = (source / "horovod" / "tensorflow" / "CMakeLists.txt").read_text()
    lines = (BEFORE + CMAKE_LISTS).splitlines()
    assert left.splitlines() == [line for line in lines if "xla_mpi_ops.cc" not in line]


def test_the_patch_for_gpus_asks_the_stream_for_its_handle(build_horovod: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "horovod-0.28.1" / "horovod" / "tensorflow" / "mpi_ops.cc"
    source.parent.mkdir(parents=True)
    hunk = build_horovod.GPU_PATCH.read_text(encoding="utf-8").rpartition("@@")[2].partition("\n")[2]
    source.write_text("".join(f"{line[1:]}\n" for line in hunk.splitlines() if line[:1] in " -"), encoding="utf-8")
    build_horovod.apply_patch(build_horovod.GPU_PATCH, tmp_path / "horovod-0.28.1")
    left = source.read_text(encoding="utf-8")
    assert "GpuStreamHandle AsGpuStreamValue(Stream* stream);" not in left
    assert "stream->platform_specific_handle().stream" in left


def test_the_patch_fails_loudly_where_its_line_is_not(build_horovod: ModuleType, tmp_path: Path) -> None:
    text = BEFORE + CMAKE_LISTS.replace("xla_mpi_ops.cc", "renamed.cc")
    source = put_source(tmp_path, text)
    with pytest.raises(build_horovod.StepError, match="patch does not apply"):
        build_horovod.apply_patch(build_horovod.PATCH, source)
    assert (source / "horovod" / "tensorflow" / "CMakeLists.txt").read_text() == text


def provide(build_horovod: ModuleType, cache: Path, *, kept: str, built: str) -> list[str]:
    """Let Horovod be provided where the cache holds `kept` and a build gives `built`; the wheels that were installed.

    A wheel with "broken" in its name does not install.
    """
    key = build_horovod.WheelKey("a", "b", "2.21.0", "4.1.4", "cpython-311", "x86_64")
    (cache / "horovod" / key.folder).mkdir(parents=True)
    if kept:
        (cache / "horovod" / key.folder / f"horovod-0.28.1-{kept}.whl").touch()
    installed: list[str] = []

    def install(wheel: Path) -> None:
        installed.append(wheel.stem.removeprefix("horovod-0.28.1-"))
        if "broken" in wheel.name:
            raise build_horovod.StepError("not a wheel")

    build_horovod.provide_horovod(key, cache, build=lambda folder: folder / f"{built}.whl", install=install)
    return installed


def test_a_kept_wheel_that_works_is_not_built_again(build_horovod: ModuleType, tmp_path: Path) -> None:
    assert provide(build_horovod, tmp_path, kept="good", built="new") == ["good"]


def test_a_kept_wheel_that_does_not_install_is_built_again(build_horovod: ModuleType, tmp_path: Path) -> None:
    assert provide(build_horovod, tmp_path, kept="broken", built="new") == ["broken", "new"]


def test_a_fresh_build_that_does_not_install_is_an_error(build_horovod: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(build_horovod.StepError, match="not a wheel"):
        provide(build_horovod, tmp_path, kept="broken", built="broken-too")

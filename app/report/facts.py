"""What a report tells beside the run's own files: versions of what is installed here, and what AWS would charge."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from app import __version__
from app.errors import StockflowError
from app.processes import find_java, find_program
from infra.context import load, written_context
from infra.cost.assumptions import read_assumptions
from infra.cost.prices import read_prices
from infra.cost.report import estimate, total
from infra.root import ROOT

_PACKAGES: Final = (
    *("tensorflow-cpu", "keras", "horovod", "onnxruntime", "pyspark", "yfinance", "exchange-calendars"),
    *("numpy", "pyarrow", "pandas", "boto3", "moto"),
)
_LIMIT_S = 10


def versions(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names and versions of what is found."""
    found = [
        ("stockflow", __version__),
        ("git commit", _git(environ)),
        ("Python", platform.python_version()),
    ]
    found += [(name, _package(name)) for name in _PACKAGES]
    found.append(("Java", _program("java", ["-version"], r'version "([^"]+)"', environ)))
    found.append(("Open MPI", _program("mpirun", ["--version"], r"\) (\d[\w.]*)", environ)))
    return [(name, told) for name, told in found if told]


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _git(environ: Mapping[str, str]) -> str:
    """Of the checkout; none where what is installed lies in somebody else's."""
    if not (ROOT / ".git").exists():
        return ""
    return _program("git", ["-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], r"^([0-9a-f]{12})$", environ)


def _program(name: str, arguments: Sequence[str], pattern: str, environ: Mapping[str, str]) -> str:
    """What a program says of its version; empty without it."""
    try:
        path = find_java(environ) if name == "java" else find_program(name, name)
        done = subprocess.run(
            [path, *arguments], env=dict(environ), capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except (StockflowError, OSError, subprocess.SubprocessError):
        return ""
    said = re.search(pattern, done.stdout + done.stderr, re.MULTILINE)
    return said[1] if said else ""


@dataclass(frozen=True)
class Costs:
    """USD of one run by phase and in all, of an idle month, and the prices' month and region."""

    phases: Mapping[str, float]
    run: float
    month: float
    as_of: str
    region: str


def costs(settings: Mapping[str, Any], tickers: int | None) -> Costs:
    """As `stockflow cost` estimates it, for these settings; StockflowError for those of another version."""
    deployment = load({**written_context(), "settings": settings})
    assumed = read_assumptions([f"tickers={tickers}"] if tickers else [])
    prices = read_prices()
    found = estimate(deployment, assumed, prices)
    phases: dict[str, float] = {}
    for line in found["full_run"]:
        phases[line.phase] = phases.get(line.phase, 0.0) + line.usd
    return Costs(phases, total(found["full_run"]), total(found["idle_month"]), prices.as_of, prices.region)

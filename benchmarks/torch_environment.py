"""The Python that has torch: an environment of its own in build/torch, for .venv holds TensorFlow.

The dependency group `bench-torch` says which torch. On Linux its plain wheel brings several GB of CUDA, so the wheel
for CPUs is asked for: first wherever uv and pip are told to look, then in PyTorch's own index.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from app.errors import StockflowError
from app.processes import last_error

_ROOT = Path(__file__).resolve().parent.parent
_FOLDER = Path("build/torch")
_UV = Path("build/tools/bin/uv")
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_WITHIN_S = 1800


class NoTorch(StockflowError):
    """torch cannot be installed."""

    exit_code = 9


def find_torch() -> str | None:
    """The interpreter that has torch: that of build/torch, or this one; None when neither has."""
    found = _ROOT / _FOLDER / "bin" / "python"
    if found.exists() and _has_torch(found):
        return str(found)
    return sys.executable if find_spec("torch") else None


def provide_torch() -> str:
    """The same, installed into build/torch where it is missing; NoTorch when that fails."""
    if found := find_torch():
        return found
    uv = _ROOT / _UV
    if not uv.exists():
        raise NoTorch(f"torch cannot be installed without {_UV}: type `make setup`")
    folder = str(_ROOT / _FOLDER)
    print(f"installing {' '.join(requirements(_ROOT))} into {_FOLDER}", flush=True)
    run = [str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, folder]
    failures = [_run(run, os.environ)]
    install = [str(uv), "pip", "install", "--quiet", "--python", folder, *requirements(_ROOT)]
    for more in (_pip_links(os.environ), ["--extra-index-url", _CPU_INDEX]):
        failures.append(_run([*install, *more], os.environ))
        if not failures[-1]:
            break
    found = find_torch()
    if found is None:
        raise NoTorch(
            f"torch cannot be installed ({failures[-1]}): name a folder of wheels in UV_FIND_LINKS, or go without TORCH"
        )
    return found


def requirements(root: Path) -> list[str]:
    """What goes into the environment: the group's torch, as the CPU's build on Linux, and NumPy."""
    groups = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    build = "+cpu" if sys.platform == "linux" else ""
    return [*(f"{name}{build}" for name in groups["bench-torch"]), "numpy>=2"]


def _pip_links(environ: Mapping[str, str]) -> list[str]:
    """Where pip is told to look, which uv does not ask."""
    return [word for links in environ.get("PIP_FIND_LINKS", "").split() for word in ("--find-links", links)]


def _has_torch(python: Path) -> bool:
    return not _run([str(python), "-c", "import torch"], os.environ)


def _run(command: list[str], environ: Mapping[str, str]) -> str:
    """Empty, or why it failed."""
    try:
        done = subprocess.run(
            command, env=dict(environ), capture_output=True, text=True, timeout=_WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"nothing came within {_WITHIN_S} s"
    return last_error(done.stderr.splitlines()) if done.returncode else ""

"""Whether Horovod's ranks find each other: an allreduce over two of them, started as training starts its own."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping

from app.doctor.check import Finding, failure, good
from app.processes import Child, ends_with_parent, find_program

HOROVOD_S = 180.0
"""Limit of it all: on a machine that has not read TensorFlow's libraries yet, importing them takes a minute."""
_RANKS = 2
_SUM = 3.0
"""Of the ranks' numbers, from 1."""
_ANEW = "type `make setup`; if that finds nothing to do, remove .venv and ~/.cache/stockflow first"


def check_horovod(environ: Mapping[str, str], limit_s: float) -> Finding:
    """Start two ranks and let them add up; raises subprocess.TimeoutExpired when they do not end."""
    from app.training.launch import mpirun_command, why_ended  # noqa: PLC0415  boto3 and pydantic: other checks go on

    mpirun = find_program("mpirun", "openmpi-bin")
    command = [*mpirun_command(mpirun, _RANKS), *ends_with_parent(), sys.executable, "-m", "app.doctor.rank"]
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="stockflow-", ignore_cleanup_errors=True) as folder:
        child = Child(command, {**environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TMPDIR": folder}, lines.append)
        try:
            status = child.wait(limit_s)
        finally:
            child.stop(1.0)
    if status:
        return failure(f"the ranks ended with status {status}: {why_ended(child.errors)}", _ANEW)
    said = _said(lines)
    if said != {"ranks": _RANKS, "sum": _SUM}:
        return failure(f"an allreduce over {_RANKS} ranks of 1 and 2 gave {said}", _ANEW)
    return good(f"an allreduce over {_RANKS} ranks is right")


def _said(lines: list[str]) -> object:
    for line in lines:
        try:
            return json.loads(line)
        except ValueError:
            continue
    return "nothing"

"""`stockflow scale`: run the cases, write tables after each, and the pictures at the end."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from app.errors import TrainingError
from app.progress import Say
from app.scaling.cases import Row
from app.scaling.local import measure_locally
from app.scaling.sagemaker import measure_on_sagemaker
from app.scaling.sweep import Sweep
from app.scaling.tables import table_lines, write_tables

STEM = "scale"
SAGEMAKER, LOCAL = "sagemaker", "local"
_MEASURES = {SAGEMAKER: measure_on_sagemaker, LOCAL: measure_locally}
_NO_MATPLOTLIB = "no pictures: matplotlib is not installed; type `pip install matplotlib` and start again"


def run_scale(sweep: Sweep, target: str, environ: Mapping[str, str], say: Say) -> None:
    """Measure all cases of a sweep; what is there when it is interrupted lies in its tables.

    Raises TrainingError at the end when a case failed.
    """
    facts = {
        "sweep": sweep.name,
        "target": target,
        "machine": platform.platform() if target == LOCAL else "Amazon SageMaker",
        "epochs": sweep.epochs,
        "settings": list(sweep.flags),
    }
    rows: list[Row] = []
    files: list[Path] = []
    with closing(_MEASURES[target](sweep, environ, say)) as measured:
        for row in measured:
            rows = sorted([*rows, row], key=lambda one: sweep.cases.index(one.case))
            files = write_tables(rows, facts, sweep.out, STEM)
            say(f"{row.case.name}: {_said(row)}")
    files += _draw(rows, sweep, target, say)
    for line in table_lines(rows):
        say(line)
    say(f"written: {', '.join(map(str, files))}")
    if failed := [row.case.name for row in rows if row.error]:
        raise TrainingError(
            f"{len(failed)} of {len(rows)} cases failed: {', '.join(failed)}; {sweep.out / STEM}.md says why"
        )


def _said(row: Row) -> str:
    if row.times is None:
        return f"failed: {row.error}"
    return f"{row.times.s_per_epoch:.2f} s/epoch, {row.times.sequences_per_s:,.0f} sequences/s"


def _draw(rows: Sequence[Row], sweep: Sweep, target: str, say: Say) -> list[Path]:
    if not any(row.times for row in rows):
        return []
    try:
        from app.scaling.plots import draw  # noqa: PLC0415  matplotlib is for development
    except ModuleNotFoundError:
        say(_NO_MATPLOTLIB)
        return []
    title = "SageMaker training jobs" if target == SAGEMAKER else "ranks on one machine"
    return draw(rows, sweep.out, STEM, f"{title}: nodes x ranks of a node")

"""The train phase on one machine: start the ranks with mpirun, follow them, end with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from app import contract
from app.dataset.spec import Spec
from app.errors import TrainingError
from app.processes import Child, find_program
from app.progress import Report
from app.settings import Place, Settings
from app.storage import Bucket
from app.training.publish import make_model_id


def run_training(place: Place, settings: Settings, environ: Mapping[str, str], report: Report) -> dict[str, Any]:
    """Train the place's dataset on `settings.training.ranks` ranks; returns the phase's result.

    Raises MissingProgram without mpirun, ObjectMissing without a dataset and TrainingError when a rank fails.
    """
    mpirun = find_program("mpirun", "openmpi-bin")
    models = Bucket(place.model_bucket)
    spec = Spec.from_json(models.get_json(contract.dataset_spec_key(place.dataset_run)))
    _run_ranks([*mpirun_command(mpirun, settings.training.ranks), *worker_command()], settings, environ, report)
    model_id = make_model_id(place.dataset_run, spec, settings)
    metrics = models.get_json(contract.model_key(model_id, contract.MODEL_METRICS))
    return {
        "rows": metrics["windows_train"],
        "where": f"s3://{models.name}/{contract.model_prefix(model_id)}",
        "model_id": model_id,
        "metrics": metrics,
    }


def mpirun_command(mpirun: str, ranks: int) -> list[str]:
    """mpirun on this machine. Idle ranks yield: their polling would otherwise double the CPU cost."""
    return [
        mpirun,
        *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
        *["-np", str(ranks), "--oversubscribe", "--bind-to", "none"],
        *["--mca", "mpi_yield_when_idle", "1"],
        *["--mca", "btl_vader_single_copy_mechanism", "none"],  # containers forbid cross-memory attach
    ]


def worker_command() -> list[str]:
    """What each rank runs."""
    return [sys.executable, "-m", "app.training.worker"]


def _run_ranks(argv: list[str], settings: Settings, environ: Mapping[str, str], report: Report) -> None:
    def on_line(line: str) -> None:
        try:
            said = json.loads(line)
            report(said["done"], said["total"], said["note"])
        except (ValueError, KeyError, TypeError):
            print(line, file=sys.stderr, flush=True)

    child = Child(
        argv,
        {
            **environ,
            contract.ENV_SETTINGS: settings.model_dump_json(),
            contract.ENV_PROGRESS: "json",
            "TF_CPP_MIN_LOG_LEVEL": "2",
        },
        on_line,
    )
    try:
        status = child.wait(settings.training.timeout_s)
    except subprocess.TimeoutExpired as exc:
        raise TrainingError(
            f"training ran longer than training.timeout_s={settings.training.timeout_s:g}: raise it or train less"
        ) from exc
    finally:
        child.stop()
    if status < 0:
        raise TrainingError(f"mpirun was killed by signal {-status}: start the phase again, it goes on")
    if status:
        print("\n".join(child.errors), file=sys.stderr, flush=True)
        reason = next((line for line in child.errors if line.startswith("rank ")), child.last_error())
        raise TrainingError(f"training ended with status {status}: {reason}")

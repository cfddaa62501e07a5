"""mpirun, on this machine or over hosts: start the ranks, follow them, end with them and say why."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import contract
from app.dataset.spec import Spec
from app.errors import TrainingError
from app.processes import Child, ends_with_parent, find_program, last_error
from app.progress import Report
from app.settings import Place, Settings
from app.storage import Bucket
from app.training.publish import make_model_id

_INWARD = "127.0.0.0/8,169.254.0.0/16"
_KILLED = re.compile(r"noticed that process rank (\d+) with PID \d+ on node (\S+) exited on signal (\d+)")


def run_training(place: Place, settings: Settings, environ: Mapping[str, str], report: Report) -> dict[str, Any]:
    """Train the place's dataset on `settings.training.ranks` ranks; returns the phase's result.

    Raises MissingProgram without mpirun, ObjectMissing without a dataset and TrainingError when a rank fails.
    """
    mpirun = find_program("mpirun", "openmpi-bin")
    models = Bucket(place.model_bucket)
    spec = Spec.from_json(models.get_json(contract.dataset_spec_key(place.dataset_run)))
    run_ranks([*mpirun_command(mpirun, settings.training.ranks), *worker_command()], settings, environ, report)
    model_id = make_model_id(place.dataset_run, spec, settings)
    metrics = models.get_json(contract.model_key(model_id, contract.MODEL_METRICS))
    return {
        "rows": metrics["windows_train"],
        "where": f"s3://{models.name}/{contract.model_prefix(model_id)}",
        "model_id": model_id,
        "metrics": metrics,
    }


@dataclass(frozen=True)
class Hosts:
    """Machines over which ranks are spread. file: mpirun's hostfile; shell: command that starts one on a machine."""

    file: Path
    shell: str


def mpirun_command(mpirun: str, ranks: int, hosts: Hosts | None = None) -> list[str]:
    """mpirun on this machine, or over hosts. Idle ranks yield: their polling would otherwise double the CPU cost."""
    return [
        mpirun,
        *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
        *["-np", str(ranks), "--oversubscribe", "--bind-to", "none"],
        *["--mca", "mpi_yield_when_idle", "1"],
        *["--mca", "btl_vader_single_copy_mechanism", "none"],  # containers forbid cross-memory attach
        *(_over(hosts) if hosts else []),
    ]


def _over(hosts: Hosts) -> list[str]:
    """Over TCP, but by no interface that leads to the machine itself or to its container agent alone."""
    return [
        *["--hostfile", str(hosts.file), "--map-by", "slot"],
        *["--mca", "plm_rsh_agent", hosts.shell, "--mca", "plm_rsh_no_tree_spawn", "1"],
        *["--mca", "pml", "ob1", "--mca", "btl", "^openib"],
        *["--mca", "btl_tcp_if_exclude", _INWARD, "--mca", "oob_tcp_if_exclude", _INWARD],
        *["-x", "NCCL_SOCKET_IFNAME=^docker,ecs,lo", "-x", "TF_CPP_MIN_LOG_LEVEL"],
    ]


def worker_command() -> list[str]:
    """What each rank runs. Until it has spoken to mpirun, while it imports, it would outlive one that is killed."""
    return [*ends_with_parent(), sys.executable, "-m", "app.training.worker"]


def check_gpus(ranks: int, gpus: int, host: str) -> None:
    """TrainingError when a host with GPUs has fewer of them than ranks, of which some would share one."""
    if 0 < gpus < ranks:
        raise TrainingError(
            f"{host} has {ranks} ranks and {gpus} GPU{'s' * (gpus > 1)}: lower training.ranks so that each has one of"
            " its own, or set CUDA_VISIBLE_DEVICES=-1 to train on the cores"
        )


def why_ended(errors: Sequence[str]) -> str:
    """The reason in what mpirun and its ranks wrote: a rank's own line, or the signal that one was killed by."""
    for line in errors:
        if line.startswith("rank "):
            return line
    for line in errors:
        if found := _KILLED.search(line):
            rank, node, signal = found.groups()
            return f"rank {rank} on {node} was killed by signal {signal}: start the phase again, it goes on"
    return last_error(errors)


def run_ranks(argv: list[str], settings: Settings, environ: Mapping[str, str], report: Report) -> None:
    """Run mpirun to its end, in a temporary folder of its own: ranks that are killed clear nothing away."""

    def on_line(line: str) -> None:
        try:
            said = json.loads(line)
            report(said["done"], said["total"], said["note"])
        except (ValueError, KeyError, TypeError):
            print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="stockflow-", ignore_cleanup_errors=True) as folder:
        child = Child(
            argv,
            {
                **environ,
                contract.ENV_SETTINGS: settings.model_dump_json(),
                contract.ENV_PROGRESS: "json",
                "TF_CPP_MIN_LOG_LEVEL": "2",
                "TMPDIR": folder,
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
        raise TrainingError(f"training ended with status {status}: {why_ended(child.errors)}")

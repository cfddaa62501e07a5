"""The arms of the training benchmark: the processes that each is made of, and what they measured together."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.processes import Child, find_program
from app.training.launch import mpirun_command
from benchmarks.ground import WrongResult
from benchmarks.training_job import TrainingJob, TrainingRun, read_runs
from benchmarks.training_options import Arm, TrainingOptions

_WITHIN_S = 900.0


@dataclass(frozen=True)
class Sample:
    """One run of an arm: of all its processes together. cpu_s: of the timed steps; wall_s: of the slowest."""

    sequences_per_s: float
    wall_s: float
    cpu_s: float
    sequences: int
    startup_s: float
    compile_s: float
    loss: float
    peak_rss_mib: float
    gflops: float
    versions: Mapping[str, str]
    is_sound: bool = True


def gather(arm: Arm, runs: Sequence[TrainingRun]) -> Sample:
    """Together: ranks of one training are as fast as the slowest; trainings of their own add up."""
    wall_s, sequences = max(run.wall_s for run in runs), sum(run.sequences for run in runs)
    if not wall_s:
        rate = 0.0
    elif arm.together:
        rate = sequences / wall_s
    else:
        rate = sum(run.sequences / run.wall_s for run in runs)
    return Sample(
        sequences_per_s=rate,
        wall_s=wall_s,
        cpu_s=sum(run.cpu_s for run in runs),
        sequences=sequences,
        startup_s=max(run.startup_s for run in runs),
        compile_s=max(run.compile_s for run in runs),
        loss=max(run.loss for run in runs),
        peak_rss_mib=max(run.peak_rss_mib for run in runs),
        gflops=max(run.gflops for run in runs),
        versions=runs[0].versions,
        is_sound=all(run.is_sound for run in runs),
    )


def run_arm(arm: Arm, batch: int, options: TrainingOptions, environ: Mapping[str, str], torch: str | None) -> Sample:
    """Run an arm once, each of its processes in an interpreter of its own; WrongResult when one fails.

    torch: the interpreter that has it.
    """
    with tempfile.TemporaryDirectory(prefix="stockflow-bench-", ignore_cleanup_errors=True) as folder:
        children = [
            Child(command, {**environ, **_threads(arm.threads)}, lambda line: None)
            for command in _commands(arm, batch, options, Path(folder), torch)
        ]
        try:
            for child in children:
                if child.wait(_WITHIN_S):
                    raise WrongResult(f"the arm {arm.name} failed at batch {batch}: {child.last_error()}")
        except subprocess.TimeoutExpired as exc:
            raise WrongResult(f"the arm {arm.name} did not end within {_WITHIN_S:g} s at batch {batch}") from exc
        finally:
            for child in children:
                child.stop()
        return gather(arm, read_runs(Path(folder)))


def _commands(arm: Arm, batch: int, options: TrainingOptions, folder: Path, torch: str | None) -> list[list[str]]:
    """Command lines of the processes that the benchmark starts itself; mpirun starts its ranks."""
    with_mpi = arm.module == "training_rank"
    started = 1 if with_mpi and arm.together else arm.processes
    found = []
    for number in range(started):
        job = TrainingJob(
            arm=arm.name,
            batch=batch,
            threads=arm.threads,
            ranks=arm.ranks,
            parties=arm.processes,
            number=number,
            windows=options.windows,
            sequences=options.sequences,
            seed=options.seed,
            folder=str(folder),
            begun_s=time.monotonic(),
        )
        interpreter = torch if arm.module == "training_torch" and torch else sys.executable
        mpirun = mpirun_command(find_program("mpirun", "openmpi-bin"), arm.ranks) if with_mpi else []
        found.append([*mpirun, interpreter, "-m", f"benchmarks.{arm.module}", str(job.write())])
    return found


def _threads(count: int) -> dict[str, str]:
    """What keeps libraries from using all cores."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    tensorflow = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    return {**dict.fromkeys((*names, *tensorflow), str(count)), **quiet}

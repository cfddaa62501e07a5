"""The cases as ranks on this machine: mpirun starts nodes x GPUs of them."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping
from dataclasses import replace

from app import contract
from app.errors import StockflowError
from app.progress import Say, silent
from app.scaling.cases import Case, Row, read_times
from app.scaling.deployment import bucket_names
from app.scaling.sweep import Sweep
from app.settings import place_from_environ
from app.storage import Bucket
from app.training.launch import run_training


def measure_locally(sweep: Sweep, environ: Mapping[str, str], say: Say) -> Generator[Row, None, None]:
    """Train one case after another; cases with as many ranks and the same batch are one here.

    Raises SettingsError without a place to train in, or for settings that are out of bounds.
    """
    cores = len(os.sched_getaffinity(0))
    for case in sweep.cases:
        sweep.settings(case)
    placed = _placed(sweep, environ)
    done: dict[tuple[int, int], Row] = {}
    for case in sweep.cases:
        before = done.get((case.ranks, case.batch))
        if before is not None:
            first = f"{before.case.nodes} x {before.case.gpus}"
            note = "; ".join(filter(None, (before.note, f"the same ranks as {first}: measured once")))
            yield replace(before, case=case, note=note)
            continue
        say(f"{case.name}: {case.ranks} ranks")
        done[case.ranks, case.batch] = row = _train(case, sweep, placed, cores)
        yield row


def _placed(sweep: Sweep, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with the buckets, and the run to train on."""
    placed = {**bucket_names(environ, sweep.deployment), **environ}
    placed[contract.ENV_DATASET_RUN] = (
        sweep.dataset_run
        or environ.get(contract.ENV_DATASET_RUN)
        or str(Bucket(placed[contract.ENV_MODEL_BUCKET]).get_json(contract.LATEST_DATASET_KEY)["run_id"])
    )
    return placed


def _train(case: Case, sweep: Sweep, environ: Mapping[str, str], cores: int) -> Row:
    note = f"oversubscribed: {case.ranks} ranks on {cores} cores" if case.ranks > cores else ""
    own = {**environ, contract.ENV_RUN_ID: sweep.run_id(case)}
    begun_s = time.monotonic()
    try:
        result = run_training(place_from_environ(own), sweep.settings(case), own, silent)
        times = read_times(result["metrics"])
    except StockflowError as exc:
        return Row(case, note=note, error=str(exc))
    taken_s = time.monotonic() - begun_s
    rest_s = taken_s - (times.startup_s or 0.0) - (times.train_s or 0.0)
    return Row(case, replace(times, rest_s=rest_s), note)

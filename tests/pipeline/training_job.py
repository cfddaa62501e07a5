"""A training job that is running, and what its run has left in S3 so far."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from app import contract
from app.training.checkpoint import Checkpoint, read_checkpoint
from tests.pipeline.conftest import World


class TrainingJob:
    """A training job in the middle of its epochs: it has written a checkpoint since it was started."""

    def __init__(self, run: World, *arguments: str) -> None:
        before = checkpoints(run)[-1:]
        self.process = run.popen("train", *arguments)
        while checkpoints(run)[-1:] in ([], before):
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.02)
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        (self._mpirun,) = (each for each in self.family if "mpirun" in Path(each.cmdline()[0]).name)
        self._ranks = {each.environ()["OMPI_COMM_WORLD_RANK"]: each for each in self._mpirun.children()}

    def signal(self, victim: str, number: signal.Signals) -> None:
        """To a rank by its number, or to mpirun."""
        (self._mpirun if victim == "mpirun" else self._ranks[victim]).send_signal(number)

    def ended(self, within_s: float) -> str:
        """The line with which it ended, in time, with nothing left of it."""
        began = time.monotonic()
        _, errors = self.process.communicate(timeout=120)
        assert time.monotonic() - began < within_s
        assert self.process.returncode == 7, errors
        _, alive = psutil.wait_procs(self.family, timeout=10)
        assert not alive
        return str(errors.strip().splitlines()[-1])


def checkpoints(run: World) -> list[str]:
    """Keys of the checkpoints of the run's model, ascending."""
    return [key for key in run.models.keys(f"{contract.MODELS_PREFIX}{run.run_id}-") if key.endswith(".npz")]


def assert_same_training(run: World, other: World) -> None:
    """Both runs have ended, with the same bits: weights, optimizer, best weights, losses and metrics."""
    ours, theirs = (read_checkpoint(each.models, checkpoints(each)[-1]) for each in (run, other))
    assert (ours.step, ours.epoch, ours.position) == (theirs.step, theirs.epoch, theirs.position)
    assert bits(ours) == bits(theirs)
    for name in ("loss", "validation_loss"):
        assert [row[name] for row in ours.history] == [row[name] for row in theirs.history]
    mine, expected = (each.result("train")["metrics"] for each in (run, other))
    for name in ("test", "validation", "linear", "best_epoch"):
        assert mine[name] == expected[name]


def bits(checkpoint: Checkpoint) -> list[tuple[Any, ...]]:
    """Type, shape and bytes of each array."""
    arrays: Sequence[Any] = [*checkpoint.state, *checkpoint.best]
    return [(array.dtype, array.shape, array.tobytes()) for array in arrays]

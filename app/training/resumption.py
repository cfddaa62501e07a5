"""Where a job stands: written into checkpoints by rank 0, and told to all ranks when it starts again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import horovod.tensorflow as hvd
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app.training.checkpoint import Checkpoint, Checkpoints
from app.training.steps import broadcast, get_state, set_state

Row = dict[str, float]
"""What an epoch measured."""


@dataclass
class Position:
    """Where the job stands.

    epoch: the running one, from 0; done: its steps that are done; kernel: of the compiled step; history: of the
    finished epochs; best: weights of the best of them; losses: this rank's of the running epoch, in order.
    """

    epoch: int = 0
    done: int = 0
    kernel: str = ""
    history: list[Row] = field(default_factory=list)
    best: list[Any] = field(default_factory=list)
    losses: list[Any] = field(default_factory=list)


def resume(checkpoints: Checkpoints | None, model: Any, optimizer: Any) -> Position:
    """Where to begin, with the weights and optimizer state of there, on all ranks alike. checkpoints: rank 0's."""
    found = checkpoints.newest() if checkpoints is not None else None
    if found is not None:
        set_state(model, optimizer, found.state)
    broadcast(model, optimizer)
    told = None
    if found is not None:
        told = (found.epoch, found.position, found.about["kernel"], found.history, found.best), found.losses
    told = hvd.broadcast_object(told, root_rank=0, name="checkpoint")
    if told is None:
        return Position()
    (epoch, done, kernel, history, best), losses = told
    return Position(epoch, done, kernel, history, best, list(losses[hvd.rank()]))


def save(checkpoints: Checkpoints | None, at: Position, step: int, model: Any, optimizer: Any) -> None:
    """Write a checkpoint after `step` steps of the job. All ranks call it: rank 0 needs their losses."""
    losses = all_losses(at.losses)
    if checkpoints is not None:
        checkpoints.save(
            Checkpoint(
                step=step,
                epoch=at.epoch,
                position=at.done,
                state=get_state(model, optimizer),
                best=at.best,
                history=at.history,
                losses=losses,
                about={"kernel": at.kernel},
            )
        )


def all_losses(mine: list[Any]) -> npt.NDArray[np.float32]:
    """Losses of all ranks in the running epoch: float32 (ranks, steps)."""
    mine[:] = [float(loss) for loss in mine]
    row = np.array(mine, np.float32)
    gathered: npt.NDArray[np.float32] = hvd.allgather(tf.constant(row[None, :]), name="losses").numpy()
    return gathered

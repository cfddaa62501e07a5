"""Training state in S3, written by rank 0 after so many steps: from it training goes on as if it had not ended.

What is random (order, dropout) follows from the seed and the step, so the position is all that is needed of it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app import contract
from app.errors import TrainingError
from app.storage import Bucket

_WRITTEN_FOR: Mapping[str, str] = {
    "dataset": "the dataset was built anew",
    "settings": "other training settings",
    "ranks": "another number of ranks",
}
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` steps of all ranks.

    epoch: the running one, from 0; position: steps of it that are done; state: weights and optimizer state; best:
    weights of the best epoch so far, nothing before the first one ends; history: a row for each finished epoch;
    losses: float32 (ranks, position) of the running epoch; about: what it belongs to (dataset, settings, ranks).
    """

    step: int
    epoch: int
    position: int
    state: list[Any]
    best: list[Any]
    history: list[dict[str, float]]
    losses: npt.NDArray[np.float32]
    about: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one model in S3, the newest `kept` of them."""

    def __init__(self, models: Bucket, model_id: str, about: Mapping[str, Any], kept: int) -> None:
        self._models, self._model_id, self._kept = models, model_id, kept
        self.about = dict(about)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write one whole, then remove those that are too old."""
        body = io.BytesIO()
        told = {"epoch": checkpoint.epoch, "position": checkpoint.position}
        text = json.dumps(
            {**told, "history": checkpoint.history, "about": {**self.about, **checkpoint.about}}, sort_keys=True
        )
        arrays: dict[str, Any] = {"told": np.frombuffer(text.encode(), np.uint8), "losses": checkpoint.losses}
        arrays |= {f"state_{i:04d}": array for i, array in enumerate(checkpoint.state)}
        arrays |= {f"best_{i:04d}": array for i, array in enumerate(checkpoint.best)}
        np.savez(body, allow_pickle=False, **arrays)
        body.write(hashlib.sha256(body.getbuffer()).digest())  # NumPy ignores what follows its archive
        self._models.put(contract.checkpoint_key(self._model_id, checkpoint.step), body.getvalue())
        for key in self._keys()[: -self._kept]:
            self._models.delete(key)

    def newest(self) -> Checkpoint | None:
        """The one to go on from, None when there is none.

        TrainingError when it cannot be read, or was written for another dataset, other settings or other ranks.
        """
        keys = self._keys()
        if not keys:
            return None
        found = read_checkpoint(self._models, keys[-1])
        changed = [reason for name, reason in _WRITTEN_FOR.items() if found.about.get(name) != self.about.get(name)]
        if changed:
            raise TrainingError(
                f"s3://{self._models.name}/{keys[-1]} is of another job ({', '.join(changed)}): delete it to train"
                " from the start, or go back to what it was written for"
            )
        return found

    def _keys(self) -> list[str]:
        return self._models.keys(contract.checkpoints_prefix(self._model_id))


def read_checkpoint(models: Bucket, key: str) -> Checkpoint:
    """One checkpoint; TrainingError when it is not what was written."""
    body = models.get(key)
    if hashlib.sha256(body[:-_DIGEST_BYTES]).digest() != body[-_DIGEST_BYTES:]:
        raise TrainingError(f"s3://{models.name}/{key} is no checkpoint: delete it and start again")
    with np.load(io.BytesIO(body), allow_pickle=False) as stored:
        told = json.loads(stored["told"].tobytes())
        names = sorted(stored.files)
        return Checkpoint(
            step=contract.checkpoint_step(key),
            epoch=told["epoch"],
            position=told["position"],
            state=[stored[name] for name in names if name.startswith("state_")],
            best=[stored[name] for name in names if name.startswith("best_")],
            history=told["history"],
            losses=stored["losses"],
            about=told["about"],
        )

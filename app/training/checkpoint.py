"""Training state in S3 after each epoch, written by rank 0."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from app import contract
from app.errors import TrainingError
from app.storage import Bucket


@dataclass(frozen=True)
class Checkpoint:
    """State after `epoch` whole epochs: weights and optimizer state, and the loss of each epoch so far."""

    epoch: int
    state: list[Any]
    history: list[dict[str, float]]


def save_checkpoint(models: Bucket, model_id: str, checkpoint: Checkpoint) -> None:
    """Write one checkpoint whole."""
    body = io.BytesIO()
    arrays: dict[str, Any] = {f"state_{i:04d}": array for i, array in enumerate(checkpoint.state)}
    columns = {name: np.array([row[name] for row in checkpoint.history]) for name in checkpoint.history[0]}
    arrays |= {f"history_{name}": column for name, column in columns.items()}
    np.savez(body, allow_pickle=False, **arrays)
    models.put(contract.checkpoint_key(model_id, checkpoint.epoch), body.getvalue())


def newest_checkpoint(models: Bucket, model_id: str) -> Checkpoint | None:
    """The newest checkpoint of a model, None when there is none; TrainingError when it cannot be read."""
    keys = models.keys(f"{contract.model_prefix(model_id)}checkpoints/")
    return load_checkpoint(models, model_id, contract.checkpoint_epoch(keys[-1])) if keys else None


def load_checkpoint(models: Bucket, model_id: str, epoch: int) -> Checkpoint:
    """The checkpoint after `epoch`; TrainingError when it cannot be read."""
    key = contract.checkpoint_key(model_id, epoch)
    try:
        with np.load(io.BytesIO(models.get(key)), allow_pickle=False) as stored:
            names = sorted(stored.files)
            state = [stored[name] for name in names if name.startswith("state_")]
            columns = {n.removeprefix("history_"): stored[n].tolist() for n in names if n.startswith("history_")}
    except (EOFError, ValueError, zipfile.BadZipFile) as exc:
        raise TrainingError(f"s3://{models.name}/{key} is no checkpoint: delete it and start again") from exc
    history = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return Checkpoint(epoch, state, history)

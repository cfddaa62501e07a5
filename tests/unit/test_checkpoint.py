"""Training state that comes back as it went."""

from __future__ import annotations

import numpy as np
import pytest

from app import contract
from app.errors import ObjectMissing, TrainingError
from app.training.checkpoint import Checkpoint, load_checkpoint, newest_checkpoint, save_checkpoint
from tests.fakes import bucket


def checkpoint(epoch: int) -> Checkpoint:
    """Twelve arrays, so that their order is not that of their digits alone; one is a scalar."""
    state = [np.full((2, i + 1), epoch + i / 7, np.float32) for i in range(11)]
    history = [{"loss": 1 / (i + 1), "s_per_epoch": 0.1 * i} for i in range(epoch)]
    return Checkpoint(epoch, [*state, np.array(epoch * 10, np.int64)], history)


def test_a_checkpoint_comes_back_bit_for_bit() -> None:
    models, written = bucket(), checkpoint(3)
    save_checkpoint(models, "m", written)
    read = load_checkpoint(models, "m", 3)
    assert (read.epoch, read.history) == (3, written.history)
    assert [array.dtype for array in read.state] == [array.dtype for array in written.state]
    assert all(np.array_equal(a, b) for a, b in zip(read.state, written.state, strict=True))


def test_the_newest_is_that_of_the_last_epoch_of_this_model() -> None:
    models = bucket()
    for epoch in (2, 10, 9):
        save_checkpoint(models, "m", checkpoint(epoch))
    save_checkpoint(models, "m-2", checkpoint(11))
    newest = newest_checkpoint(models, "m")
    assert newest is not None
    assert newest.epoch == 10
    assert newest_checkpoint(models, "none") is None


@pytest.mark.parametrize("keep", [0, 10, 0.5])
def test_a_checkpoint_cut_off_is_told_what_to_delete(keep: float) -> None:
    models = bucket()
    save_checkpoint(models, "m", checkpoint(1))
    key = contract.checkpoint_key("m", 1)
    body = models.get(key)
    models.put(key, body[: int(keep if keep != 0.5 else len(body) / 2)])
    with pytest.raises(TrainingError, match=rf"s3://fake/{key} is no checkpoint: delete it and start again"):
        newest_checkpoint(models, "m")


def test_a_checkpoint_with_a_flipped_bit_is_not_believed() -> None:
    models = bucket()
    save_checkpoint(models, "m", checkpoint(1))
    body = bytearray(models.get(contract.checkpoint_key("m", 1)))
    body[len(body) // 4] ^= 1
    models.put(contract.checkpoint_key("m", 1), bytes(body))
    with pytest.raises(TrainingError, match="is no checkpoint"):
        load_checkpoint(models, "m", 1)


def test_an_epoch_that_was_not_saved_is_missing() -> None:
    with pytest.raises(ObjectMissing, match=r"epoch-0004\.npz does not exist"):
        load_checkpoint(bucket(), "m", 4)

"""Training state that comes back as it went, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import contract
from app.errors import TrainingError
from app.storage import Bucket
from app.training.checkpoint import Checkpoint, Checkpoints, read_checkpoint
from tests.fakes import FakeS3, bucket

ABOUT: dict[str, Any] = {"dataset": "data-1", "settings": {"seed": 7, "features": ["log_return"]}, "ranks": 2}


def checkpoint(step: int, **changed: Any) -> Checkpoint:
    """Twelve arrays, so that their order is not that of their digits alone; one is a scalar, one holds odd numbers."""
    state = [np.full((2, i + 1), step + i / 7, np.float32) for i in range(10)]
    odd = np.array([np.nan, np.inf, -0.0, 1e-45], np.float32)
    written = Checkpoint(
        step=step,
        epoch=step // 5,
        position=step % 5,
        state=[*state, odd, np.array(step * 10, np.int64)],
        best=[np.full(3, 1 / 3, np.float32)],
        history=[{"loss": 1 / (i + 3), "s_per_epoch": 0.1 * i} for i in range(step // 5)],
        losses=np.arange(2 * (step % 5), dtype=np.float32).reshape(2, -1) / np.float32(3),
        about={"kernel": "xla"},
    )
    return replace(written, **changed)


def checkpoints(models: Bucket, model_id: str = "m", kept: int = 3, **about: Any) -> Checkpoints:
    return Checkpoints(models, model_id, ABOUT | about, kept)


def bits(arrays: list[Any]) -> list[tuple[Any, ...]]:
    return [(array.dtype, array.shape, array.tobytes()) for array in arrays]


@pytest.mark.parametrize("step", [3, 10, 999_999])
def test_a_checkpoint_comes_back_bit_for_bit(step: int) -> None:
    models, written = bucket(), checkpoint(step, epoch=2, history=[{"loss": 0.1 + 0.2}])
    checkpoints(models).save(written)
    read = checkpoints(models).newest()
    assert read is not None
    assert (read.step, read.epoch, read.position) == (step, 2, step % 5)
    assert read.history == written.history
    assert bits(read.state) == bits(written.state)
    assert bits(read.best) == bits(written.best)
    assert bits([read.losses]) == bits([written.losses])
    assert read.about == {**ABOUT, "kernel": "xla"}


def test_before_an_epoch_has_ended_there_is_no_best() -> None:
    models = bucket()
    checkpoints(models).save(checkpoint(3, best=[], history=[]))
    read = checkpoints(models).newest()
    assert read is not None
    assert (read.best, read.history) == ([], [])


def test_the_newest_is_that_of_the_last_step_of_this_model() -> None:
    models = bucket()
    for step in (2, 1000, 999):
        checkpoints(models).save(checkpoint(step))
    checkpoints(models, "m-2").save(checkpoint(2000))
    newest = checkpoints(models).newest()
    assert newest is not None
    assert newest.step == 1000
    assert checkpoints(models, "none").newest() is None


@pytest.mark.parametrize("kept", [1, 2, 5])
def test_the_last_ones_of_this_model_are_kept(kept: int) -> None:
    models = bucket()
    checkpoints(models, "m-2", kept=9).save(checkpoint(1))
    for step in range(5, 40, 5):
        checkpoints(models, kept=kept).save(checkpoint(step))
    assert (
        models.keys(contract.checkpoints_prefix("m"))
        == [contract.checkpoint_key("m", step) for step in range(5, 40, 5)][-kept:]
    )
    assert models.keys(contract.checkpoints_prefix("m-2")) == [contract.checkpoint_key("m-2", 1)]


def test_an_old_one_goes_when_the_new_one_is_there() -> None:
    class Watched(FakeS3):
        def delete_object(self, **call: Any) -> None:
            """What goes is never the only one."""
            assert len(self.objects) > 1
            super().delete_object(**call)

    models = bucket(Watched())
    for step in (1, 2, 3):
        checkpoints(models, kept=1).save(checkpoint(step))
    assert models.keys(contract.checkpoints_prefix("m")) == [contract.checkpoint_key("m", 3)]


@pytest.mark.parametrize("keep", [0, 10, 31, 32, 33, -1, -32, 0.5])
def test_a_checkpoint_cut_off_is_told_what_to_delete(keep: float) -> None:
    models = bucket()
    checkpoints(models).save(checkpoint(1))
    key = contract.checkpoint_key("m", 1)
    body = models.get(key)
    models.put(key, body[: int(keep if keep != 0.5 else len(body) / 2)])
    with pytest.raises(TrainingError, match=rf"s3://fake/{key} is no checkpoint: delete it and start again"):
        checkpoints(models).newest()


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_checkpoint_with_a_flipped_bit_is_not_believed(place: float, bit: int) -> None:
    models = bucket()
    checkpoints(models).save(checkpoint(1))
    key = contract.checkpoint_key("m", 1)
    body = bytearray(models.get(key))
    body[int(place * len(body))] ^= 1 << bit
    models.put(key, bytes(body))
    with pytest.raises(TrainingError, match="is no checkpoint"):
        read_checkpoint(models, key)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"dataset": "data-2"}, "the dataset was built anew"),
        ({"settings": {"seed": 8, "features": ["log_return"]}}, "other training settings"),
        ({"ranks": 4}, "another number of ranks"),
        ({"dataset": "data-2", "ranks": 4}, "the dataset was built anew, another number of ranks"),
    ],
)
def test_a_checkpoint_of_another_job_is_refused(changed: dict[str, Any], reason: str) -> None:
    models = bucket()
    checkpoints(models).save(checkpoint(7))
    with pytest.raises(TrainingError) as caught:
        checkpoints(models, **changed).newest()
    assert str(caught.value) == (
        f"s3://fake/models/m/checkpoints/step-000000007.npz is of another job ({reason}): delete it to train from the"
        " start, or go back to what it was written for"
    )


def test_settings_compare_as_they_are_stored() -> None:
    from app.settings import Settings, changed
    from app.training.publish import what_trains

    models, settings = bucket(), what_trains(changed(Settings(), 'training.features=["log_range"]'))
    checkpoints(models, settings=settings).save(checkpoint(1))
    assert checkpoints(models, settings=settings).newest() is not None

"""One rank of a job that takes a few steps of given windows: what test_training.py starts under mpirun.

``python -m tests.pipeline.average_rank FOLDER BATCH KERNEL DROPOUT MINUTES``: each rank takes its own BATCH of the same
256 windows, in order, with that dropout and resolution, and writes weights and optimizer state to
FOLDER/<kernel>-<dropout>-<ranks>-<rank>.npz.
"""

from __future__ import annotations

import sys
from pathlib import Path

import horovod.tensorflow as hvd
import keras
import numpy as np

from app.dataset.windows import WindowSet
from app.settings import TrainingSettings
from app.training.model import build_model
from app.training.steps import NativeGradient, Resident, TrainStep, broadcast, get_state, make_optimizer

WINDOWS, STEPS = 256, 3


def given() -> WindowSet:
    """Windows of two kinds: those of the second half are louder, so that half a batch is not like the whole."""
    random = np.random.default_rng(1)
    loud = np.where(np.arange(WINDOWS) < WINDOWS // 2, 1.0, 5.0)
    targets = (random.normal(size=(WINDOWS, 2)) * loud[:, None]).astype(np.float32)
    return WindowSet(
        rows=random.normal(size=(WINDOWS + 11, 3)).astype(np.float32),
        starts=np.arange(WINDOWS),
        targets=targets,
        last_price=np.ones(WINDOWS),
        future_price=np.ones((WINDOWS, 2)),
        target_std=np.ones((WINDOWS, 2), np.float32),
        ticker=np.zeros(WINDOWS, np.int64),
        as_of=np.arange(WINDOWS),
        tickers=("A",),
        window=12,
    )


def main(folder: str, batch: int, kernel: str, dropout: float, minutes: int) -> None:
    hvd.init()
    NativeGradient.PART = 48  # a batch goes through in parts, the last one smaller
    settings = TrainingSettings(dropout=dropout, resolution_min=minutes, lstm_units=8, dense_units=8)
    keras.utils.set_random_seed(hvd.rank())  # ranks begin alike because rank 0 tells them
    model = build_model(12, 3, 2, settings)
    optimizer = make_optimizer(model, settings)
    broadcast(model, optimizer)
    step = TrainStep(model, optimizer, settings, kernel)
    chosen = np.arange(WINDOWS)[hvd.rank() * batch : (hvd.rank() + 1) * batch]
    for number in range(STEPS):
        step(Resident(given()), chosen, rate=0.01, number=number)
    state = {f"{number:04d}": array for number, array in enumerate(get_state(model, optimizer))}
    np.savez(Path(folder, f"{kernel}-{dropout:g}-{hvd.size()}-{hvd.rank()}.npz"), allow_pickle=False, **state)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]), int(sys.argv[5]))

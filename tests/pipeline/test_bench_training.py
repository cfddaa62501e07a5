"""The training benchmark's own arms run the real training: fit, Horovod and mpirun."""

from __future__ import annotations

import os

import pytest

from benchmarks.training_arms import run_arm
from benchmarks.training_options import ARMS, TrainingOptions


@pytest.mark.parametrize("arm", ["ours_2_ranks", "ours_pair"])
def test_two_processes_train_begin_together_and_say_what_it_took(arm: str) -> None:
    options = TrainingOptions(batches=(32,), rounds=1, windows=1280, sequences=128)
    found = run_arm(ARMS[arm], 32, options, dict(os.environ), None)
    assert found.is_sound
    assert found.sequences == 2 * 128
    assert found.sequences_per_s > 0
    assert found.cpu_s > 0
    assert found.startup_s > 0

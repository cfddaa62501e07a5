"""The learning rate of each step and the windows of each rank."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.training.schedule import learning_rate, rank_batches, steps_per_epoch


@pytest.mark.parametrize(("step", "rate"), [(0, 0.1), (25, 0.175), (50, 0.25), (75, 0.325), (100, 0.4), (10_000, 0.4)])
def test_the_rate_warms_up_from_that_of_one_rank_to_that_of_all(step: int, rate: float) -> None:
    # Goyal et al. 2017: from the base rate in equal steps to ranks times as much.
    assert learning_rate(step, base=0.1, ranks=4, warmup_steps=100) == pytest.approx(rate)


def test_one_rank_keeps_the_base_rate_and_no_warm_up_starts_at_the_full_one() -> None:
    assert {learning_rate(step, base=0.1, ranks=1, warmup_steps=3) for step in range(5)} == {0.1}
    assert learning_rate(0, base=0.1, ranks=4, warmup_steps=0) == pytest.approx(0.4)


SIZES = {"windows": st.integers(1, 300), "batch": st.integers(1, 20), "ranks": st.integers(1, 5)}


@given(**SIZES, seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_ranks_see_disjoint_windows_and_leave_out_less_than_one_step(
    windows: int, batch: int, ranks: int, seed: int, epoch: int
) -> None:
    batches = [
        rank_batches(windows, batch=batch, rank=rank, ranks=ranks, epoch=epoch, seed=seed) for rank in range(ranks)
    ]
    assert {part.shape for part in batches} == {(steps_per_epoch(windows, batch=batch, ranks=ranks), batch)}
    seen = np.concatenate([part.ravel() for part in batches])
    assert len(set(seen.tolist())) == len(seen)
    assert set(seen.tolist()) <= set(range(windows))
    assert windows - len(seen) < batch * ranks


def test_the_ranks_of_one_epoch_deal_one_shuffle_that_seed_and_epoch_fix() -> None:
    def order(epoch: int, seed: int) -> list[int]:
        parts = [rank_batches(12, batch=2, rank=r, ranks=3, epoch=epoch, seed=seed).ravel() for r in range(3)]
        return np.stack(parts, axis=1).ravel().tolist()

    assert sorted(order(0, 7)) == list(range(12))
    assert order(0, 7) == order(0, 7) == rank_batches(12, batch=12, rank=0, ranks=1, epoch=0, seed=7).ravel().tolist()
    assert len({tuple(order(epoch, seed)) for epoch, seed in ((0, 7), (1, 7), (0, 8))}) == 3
    assert order(0, 7) != list(range(12))


@pytest.mark.parametrize(
    ("windows", "batch", "ranks", "steps"), [(100, 10, 1, 10), (100, 10, 3, 3), (29, 10, 3, 0), (30, 10, 3, 1)]
)
def test_a_step_takes_one_batch_on_every_rank(windows: int, batch: int, ranks: int, steps: int) -> None:
    assert steps_per_epoch(windows, batch=batch, ranks=ranks) == steps

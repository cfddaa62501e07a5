"""The learning rate and the order of windows: the same on every rank, from the settings alone."""

from __future__ import annotations

import numpy as np

from app.dataset.windows import Index


def learning_rate(step: int, *, base: float, ranks: int, warmup_steps: int) -> float:
    """Rate of one step: rises linearly from `base` to `base * ranks` over `warmup_steps`, then stays.

    Linear scaling with gradual warm-up: Goyal et al. 2017, section 2.
    """
    if step >= warmup_steps:
        return base * ranks
    return base * (1 + (ranks - 1) * step / warmup_steps)


def steps_per_epoch(windows: int, *, batch: int, ranks: int) -> int:
    """Whole steps that one epoch holds: every rank takes one batch of its own in each."""
    return windows // (batch * ranks)


def rank_batches(windows: int, *, batch: int, rank: int, ranks: int, epoch: int, seed: int) -> Index:
    """Windows of one rank in one epoch: int64 (steps, batch).

    All ranks shuffle alike, rank r takes every ranks-th from r on: no window is seen twice in an epoch.
    The last windows of the shuffle, too few for a whole step, wait for another epoch.
    """
    order = np.random.default_rng([seed, epoch]).permutation(windows)
    steps = steps_per_epoch(windows, batch=batch, ranks=ranks)
    return order[rank::ranks][: steps * batch].reshape(steps, batch)

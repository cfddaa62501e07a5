"""The learning rate: the same on every rank, from the settings and the step alone."""

from __future__ import annotations


def learning_rate(step: int, *, base: float, ranks: int, warmup_steps: int) -> float:
    """Rate of one step: rises linearly from `base` to `base * ranks` over `warmup_steps`, then stays.

    Linear scaling with gradual warm-up: Goyal et al. 2017, section 2.
    """
    if step >= warmup_steps:
        return base * ranks
    return base * (1 + (ranks - 1) * step / warmup_steps)

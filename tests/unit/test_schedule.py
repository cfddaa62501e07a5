"""The learning rate of each step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.training.schedule import learning_rate


@pytest.mark.parametrize(("step", "rate"), [(0, 0.1), (25, 0.175), (50, 0.25), (75, 0.325), (100, 0.4), (10_000, 0.4)])
def test_the_rate_warms_up_from_that_of_one_rank_to_that_of_all(step: int, rate: float) -> None:
    # Goyal et al. 2017: from the base rate in equal steps to ranks times as much.
    assert learning_rate(step, base=0.1, ranks=4, warmup_steps=100) == pytest.approx(rate)


def test_one_rank_keeps_the_base_rate_and_no_warm_up_starts_at_the_full_one() -> None:
    assert {learning_rate(step, base=0.1, ranks=1, warmup_steps=3) for step in range(5)} == {0.1}
    assert learning_rate(0, base=0.1, ranks=4, warmup_steps=0) == pytest.approx(0.4)


@given(st.integers(0, 500), st.integers(0, 300), st.integers(1, 32))
def test_the_rate_never_falls_and_never_leaves_its_bounds(step: int, warmup_steps: int, ranks: int) -> None:
    now, later = (learning_rate(at, base=0.1, ranks=ranks, warmup_steps=warmup_steps) for at in (step, step + 1))
    assert 0.1 <= now <= later <= 0.1 * ranks + 1e-12

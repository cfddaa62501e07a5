"""The scaler and the spec in which it travels."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from app.dataset.spec import Spec, TickerScale, fit_scale
from app.storage import to_json

POOLED = TickerScale((7.0, 8.0), (2.0, 3.0), 0.5)


def rows(*values: tuple[float, float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(values, np.float32).reshape(-1, 2)


def targets(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(values, np.float32)


def test_mean_and_std_are_those_of_trusted_values_and_targets_spread_around_zero() -> None:
    scale = fit_scale(rows((1, 10), (3, math.nan), (5, 30)), targets(3, 5))
    assert list(scale.mean) == [3, 20]
    assert scale.std == pytest.approx((math.sqrt(8 / 3), 10))
    assert scale.target_std == pytest.approx(math.sqrt(17))  # not 1, which is the spread around their mean


def test_a_feature_that_tells_nothing_takes_the_pooled_scale() -> None:
    scale = fit_scale(rows((1, math.nan), (3, math.nan)), targets(0, 0), POOLED)
    assert scale == TickerScale((2.0, 8.0), (1.0, 3.0), 0.5)
    assert fit_scale(rows((4, 1), (4, 3)), targets(), POOLED) == TickerScale((7.0, 2.0), (2.0, 1.0), 0.5)


def test_without_a_pooled_scale_such_a_feature_is_left_as_it_is() -> None:
    assert fit_scale(rows((4, math.nan)), targets(0)) == TickerScale((0.0, 0.0), (1.0, 1.0), 1.0)


def test_scales_come_as_arrays_in_the_order_asked_for() -> None:
    own = TickerScale((1.0, 2.0), (3.0, 4.0), 5.0)
    spec = Spec(60, 5, ("a", "b"), {"X": own}, POOLED, "f")
    mean, std, target_std = spec.scaling(["NEW", "X", "X"])
    assert mean.tolist() == [[7, 8], [1, 2], [1, 2]]
    assert std.tolist() == [[2, 3], [3, 4], [3, 4]]
    assert target_std.tolist() == [0.5, 5, 5]
    assert [array.shape for array in spec.scaling([])] == [(0, 2), (0, 2), (0,)]


def test_a_spec_survives_its_json_to_the_last_bit() -> None:
    own = TickerScale((0.1, 1 / 3), (2 / 3, 1e-5), 0.00123456789)
    spec = Spec(60, 5, ("a", "b"), {"X": own}, POOLED, "f")
    assert Spec.from_json({**json.loads(to_json(spec.to_json())), "windows": {"train": 1}}) == spec

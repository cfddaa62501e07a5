"""The scaler and the spec in which it travels."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.dataset.spec import Spec, TickerScale, fit_scale
from app.errors import SettingsError
from app.storage import to_json

POOLED = TickerScale((7.0, 8.0), (2.0, 3.0), (0.5, 0.7))


def rows(*values: tuple[float, float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(values, np.float32).reshape(-1, 2)


def targets(*values: tuple[float, ...], horizons: int = 2) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(values, np.float32).reshape(-1, horizons)


def spec(**changed: Any) -> Spec:
    own = TickerScale((1.0, 2.0), (3.0, 4.0), (5.0, 6.0))
    plain = Spec(60, (1, 5), ("a", "b"), {"X": own}, POOLED, (0.0, 0.25), "f")
    return replace(plain, **changed)


def test_mean_and_std_are_those_of_trusted_values_and_targets_spread_around_zero() -> None:
    scale = fit_scale(rows((1, 10), (3, math.nan), (5, 30)), targets((3, 1), (5, -7)))
    assert list(scale.mean) == [3, 20]
    assert scale.std == pytest.approx((math.sqrt(8 / 3), 10))
    assert scale.target_std == pytest.approx((math.sqrt(17), 5))  # not 1 and 4, the spread around their means


def test_a_feature_that_tells_nothing_takes_the_pooled_scale() -> None:
    scale = fit_scale(rows((1, math.nan), (3, math.nan)), targets((0, 2), (0, -2)), POOLED)
    assert scale == TickerScale((2.0, 8.0), (1.0, 3.0), (0.5, 2.0))
    assert fit_scale(rows((4, 1), (4, 3)), targets(), POOLED) == TickerScale((7.0, 2.0), (2.0, 1.0), (0.5, 0.7))


def test_without_a_pooled_scale_such_a_feature_is_left_as_it_is() -> None:
    found = fit_scale(rows((4, math.nan)), targets((0,), horizons=1))
    assert found == TickerScale((0.0, 0.0), (1.0, 1.0), (1.0,))


def test_scales_come_as_arrays_in_the_order_asked_for() -> None:
    mean, std, target_std = spec().scaling(["NEW", "X", "X"])
    assert mean.tolist() == [[7, 8], [1, 2], [1, 2]]
    assert std.tolist() == [[2, 3], [3, 4], [3, 4]]
    assert target_std.tolist() == np.array([[0.5, 0.7], [5, 6], [5, 6]], np.float32).tolist()
    assert {array.dtype.name for array in (mean, std, target_std)} == {"float32"}
    assert [array.shape for array in spec().scaling([])] == [(0, 2), (0, 2), (0, 2)]


def test_a_spec_survives_its_json_to_the_last_bit() -> None:
    own = TickerScale((0.1, 1 / 3), (2 / 3, 1e-5), (0.00123456789, 1 / 7))
    awkward = spec(scales={"X": own}, volume_profile=(1 / 3, -1e-17, 2.0), calibration=((0.1, -1 / 3, 0.0),) * 2)
    assert Spec.from_json({**json.loads(to_json(awkward.to_json())), "windows": {"train": 1}}) == awkward


def test_a_dataset_s_spec_has_no_calibration() -> None:
    stored = json.loads(to_json(spec().to_json()))
    del stored["calibration"]
    assert Spec.from_json(stored).calibration == spec().calibration == ()


def test_a_model_s_spec_is_the_dataset_s_with_some_features_in_an_order_of_its_own() -> None:
    chosen = spec().select(["b"])
    assert (chosen.features, chosen.scales["X"]) == (("b",), TickerScale((2.0,), (4.0,), (5.0, 6.0)))
    assert chosen.default_scale == TickerScale((8.0,), (3.0,), (0.5, 0.7))
    turned = spec().select(("b", "a"))
    assert (turned.features, turned.scales["X"]) == (("b", "a"), TickerScale((2.0, 1.0), (4.0, 3.0), (5.0, 6.0)))
    for one in (chosen, turned):
        kept = replace(one, features=("a", "b"), scales=spec().scales, default_scale=POOLED)
        assert kept == spec()  # horizons, profile and fingerprint are the dataset's
    assert spec().select(["a", "b"]) == spec()


def test_a_feature_that_the_dataset_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(SettingsError, match=r"holds no feature c, d: training\.features may name a, b"):
        spec().select(["c", "a", "d"])

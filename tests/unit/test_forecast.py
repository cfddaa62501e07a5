"""Quantiles that are wrong on purpose hold what they promise once they are calibrated on other windows."""

from __future__ import annotations

import numpy as np
import pytest

from app.dataset.features import FloatArray
from app.dataset.forecast import MEAN, P10, P50, P90, calibrate, calibrated

Z90 = 1.2815516  # the normal distribution's 90 % quantile


def made(seed: int, windows: int, *, stretch: float = 1.0, shift: float = 0.0) -> tuple[FloatArray, FloatArray]:
    """Forecasts (n, 2, 4) and targets (n, 2): normal, of a spread of their own in each window.

    The forecast's quantiles are `stretch` times as far from the median as they should be, and shifted by `shift`
    times the true width.
    """
    random = np.random.default_rng(seed)
    spread = np.exp(random.normal(0, 0.5, (windows, 2)))
    mean = random.normal(0, 1, (windows, 2))
    targets = mean + spread * random.normal(0, 1, (windows, 2))
    middle = mean + shift * 2 * Z90 * spread
    side = stretch * Z90 * spread
    return np.stack([mean, middle - side, middle, middle + side], axis=-1), targets


def shares_below(forecast: FloatArray, targets: FloatArray) -> FloatArray:
    """(horizons, quantiles)."""
    share: FloatArray = (targets[..., None] <= forecast[..., P10:]).mean(axis=0)
    return share


@pytest.mark.parametrize(("stretch", "shift"), [(1.0, 0.0), (0.4, 0.0), (2.5, 0.0), (1.0, 0.3), (0.5, -0.2)])
def test_calibrated_quantiles_hold_their_share_of_targets_that_nobody_has_seen(stretch: float, shift: float) -> None:
    calibration = calibrate(*made(1, 20_000, stretch=stretch, shift=shift))
    forecast, targets = made(2, 20_000, stretch=stretch, shift=shift)
    found = shares_below(calibrated(forecast, calibration), targets)
    np.testing.assert_allclose(found, [[0.1, 0.5, 0.9]] * 2, atol=0.015)


def test_quantiles_that_are_right_are_left_nearly_where_they_are() -> None:
    np.testing.assert_allclose(calibrate(*made(1, 50_000)), np.zeros((2, 3)), atol=0.01)


def test_offsets_by_hand_are_those_of_the_conformal_ranks_in_units_of_the_width() -> None:
    # 19 windows, a width of 2: the 2nd smallest of p10's distances, the median of p50's, the 18th of p90's.
    targets = np.arange(-9.0, 10.0)[:, None]
    forecast = np.tile([0.0, -1.0, 0.0, 1.0], (19, 1, 1))
    assert calibrate(forecast, targets) == (((-8 + 1) / 2, 0.0, (8 - 1) / 2),)
    assert calibrated(forecast[:1], calibrate(forecast, targets)).tolist() == [[[0.0, -8.0, 0.0, 8.0]]]


def test_few_windows_give_a_wide_interval_and_no_error() -> None:
    targets = np.array([[-3.0], [0.5], [4.0]])
    forecast = np.tile([0.0, -1.0, 0.0, 1.0], (3, 1, 1))
    held = calibrated(forecast, calibrate(forecast, targets))[:, 0]
    assert (held[:, P10] <= targets[:, 0]).all()
    assert (held[:, P90] >= targets[:, 0]).all()


def test_each_horizon_has_offsets_of_its_own() -> None:
    narrow, targets = made(1, 5_000, stretch=0.5)
    right, _ = made(1, 5_000)
    (low, _, high), other = calibrate(np.stack([narrow[:, 0], right[:, 1]], axis=1), targets)
    assert low < -0.4 < 0.4 < high
    assert max(map(abs, other)) < 0.03


def test_the_mean_is_not_touched_and_quantiles_never_cross() -> None:
    forecast, _ = made(1, 100)
    moved = calibrated(forecast, ((0.9, 0.0, -0.9), (0.0, 3.0, 0.0)))
    np.testing.assert_array_equal(moved[..., MEAN], forecast[..., MEAN])
    assert (np.diff(moved[..., P10:], axis=-1) >= 0).all()


def test_without_a_calibration_a_forecast_stays_and_is_not_written_over() -> None:
    forecast = made(1, 3)[0].astype(np.float32)
    before = forecast.copy()
    np.testing.assert_array_equal(calibrated(forecast, ()), before.astype(np.float64))
    calibrated(forecast, ((0.1, 0.1, 0.1),) * 2)
    np.testing.assert_array_equal(forecast, before)


def test_one_window_is_moved_as_it_is_among_others() -> None:
    forecast, targets = made(1, 50, stretch=0.5)
    calibration = calibrate(forecast, targets)
    np.testing.assert_array_equal(calibrated(forecast[7], calibration), calibrated(forecast, calibration)[7])


def test_forecasts_without_a_width_are_left_out() -> None:
    forecast, targets = made(1, 1_000, stretch=0.5)
    flat = forecast[:300].copy()
    flat[..., P10:] = flat[..., P50, None]
    mixed = np.concatenate([forecast, flat])
    assert calibrate(mixed, np.concatenate([targets, targets[:300]])) == calibrate(forecast, targets)
    assert calibrate(flat, targets[:300]) == ((0.0, 0.0, 0.0),) * 2
    assert calibrate(flat[:0], targets[:0]) == ((0.0, 0.0, 0.0),) * 2

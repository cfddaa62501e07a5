"""The linear model from sums is the one that least squares gives, however the windows are dealt out."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from app.dataset.features import FloatArray
from app.training.linear import LinearSums, fit_linear

WINDOW, FEATURES = 6, 2


def made(seed: int, windows: int, noise: float = 0.5) -> tuple[FloatArray, FloatArray]:
    """Inputs (n, 6, 2) and targets (n, 2) that follow some of them, and an offset."""
    random = np.random.default_rng(seed)
    inputs = random.normal(0, 1, (windows, WINDOW, FEATURES))
    signal = np.stack([0.3 * inputs[:, -1, 0] - 0.1 * inputs[:, 2, 1] + 0.2, inputs[:, 0, 1]], axis=-1)
    return inputs, signal + noise * random.normal(0, 1, (windows, 2))


def sums_of(inputs: FloatArray, targets: FloatArray, parts: int = 1) -> LinearSums:
    batches = zip(np.array_split(inputs, parts), np.array_split(targets, parts), strict=True)
    return reduce(LinearSums.added, (LinearSums.of(*batch) for batch in batches))


def test_without_a_ridge_it_is_least_squares() -> None:
    inputs, targets = made(1, 500)
    design = np.hstack([inputs.reshape(500, -1), np.ones((500, 1))])
    expected, *_ = np.linalg.lstsq(design, targets)
    model = sums_of(inputs, targets).solve(0.0)
    np.testing.assert_allclose(model.weights, expected, atol=1e-12)
    np.testing.assert_allclose(model.predict(inputs), design @ expected, atol=1e-12)


def test_it_finds_what_was_planted_and_the_offset() -> None:
    weights = sums_of(*made(1, 200_000)).solve(1e-6).weights
    expected = np.zeros((WINDOW * FEATURES + 1, 2))
    expected[10, 0], expected[5, 0], expected[-1, 0], expected[1, 1] = 0.3, -0.1, 0.2, 1.0
    np.testing.assert_allclose(weights, expected, atol=0.005)


@pytest.mark.parametrize("parts", [2, 7])
def test_it_does_not_matter_how_the_windows_are_dealt_out(parts: int) -> None:
    inputs, targets = made(1, 1_001)
    whole, dealt = sums_of(inputs, targets), sums_of(inputs, targets, parts)
    assert dealt.count == whole.count == 1_001
    np.testing.assert_allclose(dealt.solve(0.01).weights, whole.solve(0.01).weights, atol=1e-12)


def test_a_ridge_shrinks_the_weights_and_spares_the_intercept() -> None:
    inputs, targets = made(1, 5_000)
    weights = sums_of(inputs, targets).solve(1e6).weights
    assert np.abs(weights[:-1]).max() < 1e-5
    np.testing.assert_allclose(weights[-1], targets.mean(axis=0), atol=1e-5)


def test_inputs_that_repeat_each_other_are_no_error() -> None:
    inputs, targets = made(1, 300)
    inputs[:, :, 1] = inputs[:, :, 0]
    assert np.isfinite(sums_of(inputs, targets).solve(1e-4).predict(inputs)).all()


def test_the_loss_from_sums_is_the_mean_squared_error() -> None:
    model, (inputs, targets) = sums_of(*made(1, 500)).solve(0.1), made(2, 300)
    expected = np.square(model.predict(inputs) - targets).mean()
    assert sums_of(inputs, targets, parts=3).loss(model) == pytest.approx(expected, rel=1e-9)


def test_the_ridge_is_the_one_that_does_best_on_validation() -> None:
    validation = sums_of(*made(2, 2_000))
    few, many = (sums_of(*made(1, windows, noise=3.0)) for windows in (20, 50_000))
    ridges = (1e-4, 10.0)
    assert np.array_equal(fit_linear(few, validation, ridges).weights, few.solve(10.0).weights)
    assert np.array_equal(fit_linear(many, validation, ridges).weights, many.solve(1e-4).weights)


def test_float32_inputs_are_summed_in_double_precision() -> None:
    inputs, targets = made(1, 100)
    single = LinearSums.of(inputs.astype(np.float32), targets.astype(np.float32))
    assert {array.dtype for array in (single.gram, single.moment, single.square)} == {np.dtype(np.float64)}
    expected = LinearSums.of(inputs.astype(np.float32).astype(np.float64), targets.astype(np.float32))
    np.testing.assert_array_equal(single.gram, expected.gram)

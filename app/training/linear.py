"""The linear model on the network's own features: what the network must beat to be worth its trouble.

It is built from sums, so that a rank adds up its own windows and ranks add their sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.dataset.features import FloatArray

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Strengths of the penalty that `fit_linear` tries, for features with a standard deviation of 1."""


@dataclass(frozen=True)
class LinearModel:
    """weights: float64 (window x features + 1, H), the last row the intercept."""

    weights: FloatArray

    def predict(self, inputs: npt.NDArray[np.floating]) -> FloatArray:
        """Forecasts float64 (k, H), in the targets' unit, of inputs (k, window, features)."""
        forecast: FloatArray = _design(inputs) @ self.weights
        return forecast


@dataclass(frozen=True)
class LinearSums:
    """All that least squares needs to know of any number of windows.

    gram: float64 (d, d), d = window x features + 1; moment: (d, H); square: (H,) of the targets. Each may be added
    over ranks by itself.
    """

    gram: FloatArray
    moment: FloatArray
    square: FloatArray
    count: float

    @classmethod
    def of(cls, inputs: npt.NDArray[np.floating], targets: npt.NDArray[np.floating]) -> LinearSums:
        """Sums of one batch: inputs (k, window, features) as the network takes them, targets (k, H)."""
        design, wanted = _design(inputs), targets.astype(np.float64)
        return cls(design.T @ design, design.T @ wanted, np.square(wanted).sum(axis=0), float(len(design)))

    def added(self, other: LinearSums) -> LinearSums:
        """Sums of both."""
        return LinearSums(
            self.gram + other.gram, self.moment + other.moment, self.square + other.square, self.count + other.count
        )

    def solve(self, ridge: float) -> LinearModel:
        """Least mean square plus `ridge` times the square of all weights but the intercept."""
        penalty = np.full(len(self.gram), ridge * self.count)
        penalty[-1] = 0.0
        weights: FloatArray = np.linalg.solve(self.gram + np.diag(penalty), self.moment).astype(np.float64)
        return LinearModel(weights)

    def loss(self, model: LinearModel) -> float:
        """The model's mean squared error over these windows and all horizons."""
        w = model.weights
        explained = 2 * np.sum(w * self.moment, axis=0) - np.sum(w * (self.gram @ w), axis=0)
        return float(np.mean(self.square - explained) / self.count)


def fit_linear(train: LinearSums, validation: LinearSums, ridges: Sequence[float] = RIDGES) -> LinearModel:
    """Fitted on `train`, with the ridge that does best on `validation`: the network's epoch is chosen there too."""
    return min((train.solve(ridge) for ridge in ridges), key=validation.loss)


def _design(inputs: npt.NDArray[np.floating]) -> FloatArray:
    """float64 (k, window x features + 1): each window in one row, and 1 for the intercept."""
    flat = inputs.reshape(len(inputs), -1)
    return np.concatenate([flat, np.ones((len(flat), 1))], axis=1, dtype=np.float64)

"""The dataset's spec: all that training, export and serving need to feed a model as it was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from app.dataset.features import Rows

_SMALLEST_STD = 1e-6


@dataclass(frozen=True)
class TickerScale:
    """Scaler of one ticker, from its training sessions.

    mean, std: of each feature; target_std: of the log return over the horizon (its mean is taken as 0:
    the forecast "the price stays" must stay reachable).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    target_std: float


@dataclass(frozen=True)
class Spec:
    """How a model is fed and read.

    features: names in input order; scales: by ticker; default_scale: for a ticker that training never saw.
    """

    window_min: int
    horizon_min: int
    features: tuple[str, ...]
    scales: Mapping[str, TickerScale]
    default_scale: TickerScale
    fingerprint: str

    def scale_of(self, ticker: str) -> TickerScale:
        """The ticker's scaler, or the pooled one."""
        return self.scales.get(ticker, self.default_scale)

    def scaling(self, tickers: Sequence[str]) -> tuple[Rows, Rows, Rows]:
        """Scalers as arrays: mean and std float32 (n, features), target_std float32 (n,)."""
        scales = [self.scale_of(ticker) for ticker in tickers]
        shape = (len(scales), len(self.features))
        return (
            np.array([s.mean for s in scales], np.float32).reshape(shape),
            np.array([s.std for s in scales], np.float32).reshape(shape),
            np.array([s.target_std for s in scales], np.float32),
        )

    def to_json(self) -> dict[str, Any]:
        """As stored beside the dataset and beside the model."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Spec:
        """The inverse of to_json; keys that it does not know are ignored."""
        return cls(
            window_min=value["window_min"],
            horizon_min=value["horizon_min"],
            features=tuple(value["features"]),
            scales={ticker: _scale(scale) for ticker, scale in value["scales"].items()},
            default_scale=_scale(value["default_scale"]),
            fingerprint=value["fingerprint"],
        )


def fit_scale(features: Rows, targets: Rows, fallback: TickerScale | None = None) -> TickerScale:
    """Mean and std of feature rows (n, features), NaN left out, and std around 0 of targets (m,).

    fallback: stands in for what the rows do not tell: a feature without any trusted value, or without
    spread; without a fallback such a feature is left as it is (mean 0, std 1).
    """
    count = features.shape[1]
    spare = fallback or TickerScale((0.0,) * count, (1.0,) * count, 1.0)
    mean, std = list(spare.mean), list(spare.std)
    for i, column in enumerate(features.T.astype(np.float64)):
        trusted = column[~np.isnan(column)]
        if len(trusted) and trusted.std() > _SMALLEST_STD:
            mean[i], std[i] = float(trusted.mean()), float(trusted.std())
    target_std = float(np.sqrt(np.mean(np.square(targets, dtype=np.float64)))) if len(targets) else 0.0
    return TickerScale(tuple(mean), tuple(std), target_std if target_std > _SMALLEST_STD else spare.target_std)


def _scale(value: Mapping[str, Any]) -> TickerScale:
    return TickerScale(tuple(value["mean"]), tuple(value["std"]), value["target_std"])

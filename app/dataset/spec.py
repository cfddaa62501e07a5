"""The dataset's spec: all that training, export and serving need to feed a model as it was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from app.dataset.features import Rows
from app.dataset.forecast import Calibration
from app.errors import SettingsError

_SMALLEST_STD = 1e-6


@dataclass(frozen=True)
class TickerScale:
    """Scaler of one ticker, from its training sessions.

    mean, std: of each feature; target_std: of the log return over each horizon (its mean is taken as 0: the
    forecast "the price stays" must stay reachable).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    target_std: tuple[float, ...]

    def select(self, places: Sequence[int]) -> TickerScale:
        """That of the features at these places."""
        return replace(self, mean=tuple(self.mean[i] for i in places), std=tuple(self.std[i] for i in places))


@dataclass(frozen=True)
class Spec:
    """How a model is fed and read.

    features: names in input order; scales: by ticker; default_scale: for a ticker that training never saw;
    volume_profile: what app.dataset.features wants; fingerprint: of the whole dataset, whatever was taken of it;
    calibration: of a trained model's quantiles, see app.dataset.forecast.
    """

    window_min: int
    horizons_min: tuple[int, ...]
    features: tuple[str, ...]
    scales: Mapping[str, TickerScale]
    default_scale: TickerScale
    volume_profile: tuple[float, ...]
    fingerprint: str
    calibration: Calibration = ()

    def scale_of(self, ticker: str) -> TickerScale:
        """The ticker's scaler, or the pooled one."""
        return self.scales.get(ticker, self.default_scale)

    def scaling(self, tickers: Sequence[str]) -> tuple[Rows, Rows, Rows]:
        """Scalers as arrays: mean and std float32 (n, features), target_std float32 (n, horizons)."""
        scales = [self.scale_of(ticker) for ticker in tickers]
        shape = (len(scales), len(self.features))
        return (
            np.array([s.mean for s in scales], np.float32).reshape(shape),
            np.array([s.std for s in scales], np.float32).reshape(shape),
            np.array([s.target_std for s in scales], np.float32).reshape(len(scales), len(self.horizons_min)),
        )

    def select(self, features: Sequence[str]) -> Spec:
        """The spec of a model that takes some of the features, in this order; SettingsError for one not held."""
        if unknown := [name for name in features if name not in self.features]:
            raise SettingsError(
                f"the dataset holds no feature {', '.join(unknown)}: training.features may name"
                f" {', '.join(self.features)}"
            )
        if tuple(features) == self.features:
            return self
        places = [self.features.index(name) for name in features]
        return replace(
            self,
            features=tuple(features),
            scales={ticker: scale.select(places) for ticker, scale in self.scales.items()},
            default_scale=self.default_scale.select(places),
        )

    def of_horizons(self, horizons_min: Sequence[int]) -> Spec:
        """The spec with some of its horizons alone."""
        places = [self.horizons_min.index(minutes) for minutes in horizons_min]

        def of(scale: TickerScale) -> TickerScale:
            return replace(scale, target_std=tuple(scale.target_std[i] for i in places))

        return replace(
            self,
            horizons_min=tuple(horizons_min),
            scales={ticker: of(scale) for ticker, scale in self.scales.items()},
            default_scale=of(self.default_scale),
            calibration=tuple(self.calibration[i] for i in places) if self.calibration else self.calibration,
        )

    def to_json(self) -> dict[str, Any]:
        """As stored beside the dataset and beside the model."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Spec:
        """The inverse of to_json; keys that it does not know are ignored."""
        return cls(
            window_min=value["window_min"],
            horizons_min=tuple(value["horizons_min"]),
            features=tuple(value["features"]),
            scales={ticker: _scale(scale) for ticker, scale in value["scales"].items()},
            default_scale=_scale(value["default_scale"]),
            volume_profile=tuple(value["volume_profile"]),
            fingerprint=value["fingerprint"],
            calibration=tuple(tuple(offsets) for offsets in value.get("calibration", ())),
        )


def fit_scale(features: Rows, targets: Rows, fallback: TickerScale | None = None) -> TickerScale:
    """Mean and std of feature rows (n, features), NaN left out, and std around 0 of targets (m, horizons).

    fallback: stands in for what the rows do not tell: a feature without any trusted value, or without
    spread, a horizon without a move; without a fallback such a one is left as it is (mean 0, std 1).
    """
    count = features.shape[1]
    spare = fallback or TickerScale((0.0,) * count, (1.0,) * count, (1.0,) * targets.shape[1])
    mean, std = list(spare.mean), list(spare.std)
    for i, column in enumerate(features.T.astype(np.float64)):
        trusted = column[~np.isnan(column)]
        if len(trusted) and trusted.std() > _SMALLEST_STD:
            mean[i], std[i] = float(trusted.mean()), float(trusted.std())
    moves = np.sqrt(np.square(targets, dtype=np.float64).sum(axis=0) / max(1, len(targets)))
    target_std = np.where(moves > _SMALLEST_STD, moves, spare.target_std)
    return TickerScale(tuple(mean), tuple(std), tuple(map(float, target_std)))


def _scale(value: Mapping[str, Any]) -> TickerScale:
    return TickerScale(tuple(value["mean"]), tuple(value["std"]), tuple(value["target_std"]))

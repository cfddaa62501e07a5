"""What a model forecasts: the mean and three quantiles of each horizon, and how far the quantiles are to be trusted.

A forecast has the shape (..., horizons, 4): [MEAN, P10, P50, P90] of the log return over the horizon.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.contract import QUANTILES
from app.dataset.features import FloatArray

MEAN, P10, P50, P90 = range(4)
OUTPUTS = 1 + len(QUANTILES)
"""Numbers of one horizon."""

Calibration = tuple[tuple[float, ...], ...]
"""By horizon: how far to move p10, p50 and p90, in units of the forecast's own width p90 - p10; a dataset has none."""

_SMALLEST_WIDTH = 1e-6  # of the median width


def calibrate(forecast: npt.NDArray[np.floating], targets: npt.NDArray[np.floating]) -> Calibration:
    """Offsets after which, on these very windows, a share q of the targets lies below quantile q.

    forecast: (n, H, 4), of days that the network was not fitted to; targets: (n, H) in the same unit. The offset of q
    is the empirical q-quantile of (target - p_q) / (p90 - p10). The outer ones are taken at the rank that conformal
    prediction asks of n windows, each side for itself, which leaves the interval no smaller than 80 % of new windows
    as long as these are like the old: Romano, Patterson and Candes, "Conformalized Quantile Regression", NeurIPS 2019,
    theorem 2, with scores divided by the width as in Sesia and Candes, Stat 9(1), 2020. Forecasts without a width tell
    nothing and are left out; where none is left the offsets are 0.
    """
    return tuple(
        _offsets(forecast[:, horizon].astype(np.float64), targets[:, horizon]) for horizon in range(targets.shape[1])
    )


def calibrated(forecast: npt.NDArray[np.floating], calibration: Sequence[Sequence[float]]) -> FloatArray:
    """The forecast (..., H, 4) with its quantiles moved, float64, p10 <= p50 <= p90; the mean stays.

    calibration: (H, 3) as `calibrate` gives it; an empty one moves nothing.
    """
    moved = forecast.astype(np.float64)
    if calibration:
        width = moved[..., P90] - moved[..., P10]  # (..., H)
        moved[..., P10:] += width[..., None] * np.asarray(calibration, np.float64)
        moved[..., P10:].sort(axis=-1)
    return moved


def _offsets(forecast: FloatArray, targets: npt.NDArray[np.floating]) -> tuple[float, float, float]:
    """Offsets of one horizon. forecast: (n, 4); targets: (n,)."""
    width = forecast[:, P90] - forecast[:, P10]
    told = width > _SMALLEST_WIDTH * np.median(width) if len(width) else np.zeros(0, bool)
    if not told.any():
        return 0.0, 0.0, 0.0
    # (windows, quantiles): where the target lies, seen from each quantile
    scores = (targets[told, None] - forecast[told, P10:]) / width[told, None]
    low, middle, high = (float(_quantile(scores[:, i], share)) for i, share in enumerate(QUANTILES))
    return low, middle, high


def _quantile(scores: FloatArray, share: float) -> np.float64:
    """The conformal quantile of an outer share, the plain one of the median."""
    if share == 0.5:
        return np.float64(np.median(scores))
    place = round((len(scores) + 1) * share, 9)  # 1 is the smallest
    rank = math.floor(place) if share < 0.5 else math.ceil(place)
    index = min(max(rank, 1), len(scores)) - 1
    return np.float64(np.partition(scores, index)[index])

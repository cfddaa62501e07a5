"""How good a forecast is: against the forecast that the price stays where it is, and against the linear model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from app.contract import QUANTILES
from app.dataset.features import FloatArray
from app.dataset.forecast import MEAN, OUTPUTS, P10, P90
from app.dataset.windows import Index
from app.errors import TrainingError
from app.training.day_bootstrap import DayBootstrap, Interval
from app.training.rank_ic import Minutes

_TINY = float(np.finfo(float).tiny)
_UNKNOWN = None, None, None


@dataclass(frozen=True)
class HorizonMetrics:
    """Errors over one split at one horizon, of the forecast's mean unless it says otherwise.

    *_usd: of the price; *_bp: of the log return in basis points; *_persistence_*: of the forecast that the price stays.
    skill: 1 - MSE / MSE of persistence, of returns; over_linear: the same against the linear model; direction: share
    of right signs among the moves that are not zero; rank_ic: Spearman's correlation with the returns over the tickers
    of a minute, mean over `rank_ic_minutes` minutes. *_interval: 95 %, by day; None with fewer than two days.
    *significant: whether the interval leaves out what a forecast that knows nothing has, 0 or a direction of 1/2.
    coverage: share of returns within p10..p90; width_bp: mean of p90 - p10; below: share of returns that are no higher
    than each quantile. None is what cannot be told.
    """

    windows: int
    mae_usd: float
    mae_persistence_usd: float
    rmse_usd: float
    rmse_persistence_usd: float
    mae_bp: float
    mae_persistence_bp: float
    rmse_bp: float
    rmse_persistence_bp: float
    skill: float
    skill_interval: Interval | None
    significant: bool | None
    over_linear: float | None
    over_linear_interval: Interval | None
    over_linear_significant: bool | None
    direction: float | None
    direction_interval: Interval | None
    direction_significant: bool | None
    rank_ic: float | None
    rank_ic_interval: Interval | None
    rank_ic_significant: bool | None
    rank_ic_minutes: int
    coverage: float | None
    width_bp: float | None
    below: Mapping[str, float] | None


@dataclass(frozen=True)
class SplitMetrics:
    """A split's metrics by horizon in minutes. days: New York days; skill: mean of the horizons' skills."""

    windows: int
    days: int
    skill: float
    horizons: Mapping[int, HorizonMetrics]

    def to_json(self) -> dict[str, Any]:
        """As stored in metrics.json."""
        horizons = {str(minutes): asdict(metrics) for minutes, metrics in self.horizons.items()}
        return {"windows": self.windows, "days": self.days, "skill": self.skill, "horizons": horizons}


def evaluate(
    forecast: FloatArray,
    *,
    last_price: FloatArray,
    future_price: FloatArray,
    as_of: Index,
    horizons_min: Sequence[int],
    seed: int,
    linear: FloatArray | None = None,
) -> SplitMetrics:
    """Metrics of calibrated forecasts of log returns, float64 (n, H, 4), or (n, H, 1) of the mean alone.

    last_price: (n,) USD when a forecast was made; future_price: (n, H) USD; as_of: (n,) epoch seconds; linear: (n, H)
    log returns that the linear model forecasts; seed: of the days drawn for intervals. Raises TrainingError when a
    forecast is not finite.
    """
    if broken := np.count_nonzero(~np.isfinite(forecast).all(axis=(1, 2))):
        raise TrainingError(
            f"{broken:,} of {len(forecast):,} forecasts are not finite: lower training.learning_rate and train again"
        )
    days, minutes = DayBootstrap(as_of, seed), Minutes(as_of)
    horizons = {
        minute: _horizon(
            forecast[:, i], last_price, future_price[:, i], None if linear is None else linear[:, i], days, minutes
        )
        for i, minute in enumerate(horizons_min)
    }
    skill = float(np.mean([metrics.skill for metrics in horizons.values()]))
    return SplitMetrics(len(forecast), days.days, skill, horizons)


def mean_skill(predicted: FloatArray, last_price: FloatArray, future_price: FloatArray) -> float:
    """Mean over the horizons of 1 - MSE / MSE of persistence, as `evaluate` has it.

    predicted: (n, H) log returns; last_price: (n,) USD; future_price: (n, H) USD.
    """
    actual = np.log(future_price / last_price[:, None])
    error, still = (np.square(values).sum(axis=0) for values in (predicted - actual, actual))
    return float(np.mean(1 - error / np.maximum(still, _TINY)))


def _horizon(
    forecast: FloatArray,
    last: FloatArray,
    future: FloatArray,
    linear: FloatArray | None,
    days: DayBootstrap,
    minutes: Minutes,
) -> HorizonMetrics:
    """Of one horizon. forecast: (n, 4) or (n, 1); the others (n,)."""
    predicted, actual = forecast[:, MEAN], np.log(future / last)
    error, usd, still_usd = predicted - actual, last * np.exp(predicted) - future, last - future
    squared, moved = days.sums(np.square(error)), actual != 0
    skill, skill_interval, significant = _saved(squared, days.sums(np.square(actual)), days)
    over_linear, over_linear_interval, over_linear_significant = (
        _UNKNOWN if linear is None else _saved(squared, days.sums(np.square(linear - actual)), days)
    )
    right = moved & (np.sign(predicted) == np.sign(actual))
    direction, direction_interval, direction_significant = _share(
        days.sums(right), days.sums(moved), days, least=0, chance=0.5
    )
    correlation, known = minutes.rank_ic(predicted, actual)
    first = minutes.first[known]
    rank_ic, rank_ic_interval, rank_ic_significant = _share(
        days.sums(correlation[known], first), days.sums(known[known], first), days, least=-1, chance=0
    )
    return HorizonMetrics(
        windows=len(actual),
        mae_usd=float(np.abs(usd).mean()),
        mae_persistence_usd=float(np.abs(still_usd).mean()),
        rmse_usd=_rms(usd),
        rmse_persistence_usd=_rms(still_usd),
        mae_bp=float(np.abs(error).mean()) * 1e4,
        mae_persistence_bp=float(np.abs(actual).mean()) * 1e4,
        rmse_bp=_rms(error) * 1e4,
        rmse_persistence_bp=_rms(actual) * 1e4,
        skill=skill,
        skill_interval=skill_interval,
        significant=significant,
        over_linear=over_linear,
        over_linear_interval=over_linear_interval,
        over_linear_significant=over_linear_significant,
        direction=direction,
        direction_interval=direction_interval,
        direction_significant=direction_significant,
        rank_ic=rank_ic,
        rank_ic_interval=rank_ic_interval,
        rank_ic_significant=rank_ic_significant,
        rank_ic_minutes=int(known.sum()),
        **_quantiles(forecast, actual),
    )


def _saved(error: FloatArray, rival: FloatArray, days: DayBootstrap) -> tuple[float, Interval | None, bool | None]:
    """1 - error / rival, of sums of squares by day: value, interval, whether it is significant."""
    found = days.interval(error, rival)
    interval = None if found is None else (1 - found[1], 1 - found[0])
    return 1 - float(error.sum() / max(rival.sum(), _TINY)), interval, _leaves_out(0, interval)


def _share(
    top: FloatArray, bottom: FloatArray, days: DayBootstrap, *, least: float, chance: float
) -> tuple[float | None, Interval | None, bool | None]:
    """Top / bottom, of sums by day, between `least` and 1: value, interval, whether it is significant."""
    if not bottom.any():
        return _UNKNOWN
    found = days.interval(top, bottom)
    interval = None if found is None else (max(least, found[0]), min(1.0, found[1]))
    return float(top.sum() / bottom.sum()), interval, _leaves_out(chance, interval)


def _leaves_out(chance: float, interval: Interval | None) -> bool | None:
    return None if interval is None else not interval[0] <= chance <= interval[1]


def _quantiles(forecast: FloatArray, actual: FloatArray) -> dict[str, Any]:
    """How often the quantiles (n, 4) hold."""
    if forecast.shape[1] < OUTPUTS:
        return {"coverage": None, "width_bp": None, "below": None}
    low, high = forecast[:, P10], forecast[:, P90]
    below = (actual[:, None] <= forecast[:, P10:]).mean(axis=0)
    return {
        "coverage": float(((low <= actual) & (actual <= high)).mean()),
        "width_bp": float((high - low).mean()) * 1e4,
        "below": {f"p{100 * share:.0f}": float(found) for share, found in zip(QUANTILES, below, strict=True)},
    }


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.square(values).mean()))

"""How good a forecast is, against the forecast that the price stays where it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from app.dataset.features import FloatArray


@dataclass(frozen=True)
class Metrics:
    """Errors over one split.

    *_usd: of the price; *_bp: of the log return in basis points; skill: 1 - MSE / MSE of persistence, of
    returns; direction: share of right signs among the moves that are not zero.
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
    direction: float

    def to_json(self) -> dict[str, float]:
        """As stored in metrics.json."""
        return asdict(self)


def evaluate(predicted_return: FloatArray, last_price: FloatArray, future_price: FloatArray) -> Metrics:
    """Metrics of forecasts (n,), made at `last_price` USD, of what became `future_price` USD."""
    actual = np.log(future_price / last_price)
    error = predicted_return - actual
    usd = last_price * np.exp(predicted_return) - future_price
    stays_usd = last_price - future_price
    moved = actual != 0
    return Metrics(
        windows=len(actual),
        mae_usd=float(np.abs(usd).mean()),
        mae_persistence_usd=float(np.abs(stays_usd).mean()),
        rmse_usd=_rms(usd),
        rmse_persistence_usd=_rms(stays_usd),
        mae_bp=float(np.abs(error).mean()) * 1e4,
        mae_persistence_bp=float(np.abs(actual).mean()) * 1e4,
        rmse_bp=_rms(error) * 1e4,
        rmse_persistence_bp=_rms(actual) * 1e4,
        skill=1 - float(np.square(error).sum() / max(np.square(actual).sum(), np.finfo(float).tiny)),
        direction=float((np.sign(predicted_return) == np.sign(actual))[moved].mean()) if moved.any() else 0.0,
    )


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.square(values).mean()))

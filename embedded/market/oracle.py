"""The best possible forecast of the simulated market, from its observed bars alone.

The simulated market plants a momentum that is an exact function of past returns (docs/simulated_market.md):
this module recovers it and says how much of the returns' variance any model can explain.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app import contract
from app.ingest.ticker_bars import Floats, Ints, Mask
from app.sessions import Session, sessions_between
from embedded.market.bars import Market

if TYPE_CHECKING:
    from embedded.market.simulated import SimulatedMarket


class Forecast(NamedTuple):
    """The oracle's forecasts for one ticker, one entry for each observed bar that has a target; ascending."""

    ts: Ints
    """Start of the last observed bar, UTC epoch seconds; the forecast is known one minute later."""
    forecast: Floats
    """Expected log return over the horizon, given the past."""
    realised: Floats
    """Log return that happened, with closes carried over minutes without a bar."""


class _Grid(NamedTuple):
    """Minute grid of all tickers; arrays are (tickers, sessions, minutes), padded to the longest session."""

    sessions: tuple[Session, ...]
    traded: Mask
    log_return: Floats  # of traded minutes; the first one of a session is from its open; 0 elsewhere
    log_close: Floats  # carried forward over minutes that did not trade


def oracle_forecast(settings: SimulatedMarket, market: Market, horizon_min: int) -> Mapping[str, Forecast]:
    """The conditional expectation of the log return over the next `horizon_min` minutes, by ticker.

    Uses the bars of `market` and the settings g = `momentum_gain` and d = `momentum_decay`:
    x = (d - g) x + r over the traded minutes of a session from x = 0, and forecast = g x (1 - d^n) / (1 - d)
    with n = traded minutes among the next `horizon_min`. Knowing n tells nothing about the returns: the
    schedule of trading is independent of them.
    An entry for each observed bar whose target minute lies in the same session.
    """
    gain, decay = settings.momentum_gain, settings.momentum_decay
    grid = _grid(market)
    momentum = _momentum(grid, gain, decay)
    so_far = np.cumsum(grid.traded, axis=2)
    ahead: Ints = so_far[:, :, horizon_min:] - so_far[:, :, :-horizon_min]
    forecast = gain * momentum[:, :, :-horizon_min] * (1 - decay**ahead) / (1 - decay)
    realised = grid.log_close[:, :, horizon_min:] - grid.log_close[:, :, :-horizon_min]
    lengths = np.array([session.minutes for session in grid.sessions])
    minute = np.arange(forecast.shape[2])
    wanted = grid.traded[:, :, :-horizon_min] & (minute + horizon_min < lengths[:, None])
    opens = np.array([session.open_ts for session in grid.sessions], np.int64)
    ts = opens[:, None] + contract.BAR_S * minute
    return {
        ticker: Forecast(ts[wanted[i]], forecast[i][wanted[i]], realised[i][wanted[i]])
        for i, ticker in enumerate(market.tickers)
    }


def attainable_skill(
    settings: SimulatedMarket,
    market: Market,
    horizon_min: int,
    days: Collection[date] | None = None,
    *,
    window_min: int = 1,
    furthest_min: int | None = None,
) -> float:
    """The oracle's skill over persistence on `days` (New York dates; None is all days of the market).

    1 - Σ(realised - oracle)² / Σ realised²: what no model can exceed but by luck. Only forecasts count for which a
    model has a whole window of `window_min` minutes in the session, and its furthest target too (furthest_min, by
    default the horizon): a model of several horizons is judged on the same windows at all of them. Raises ValueError
    when none of the days has a target.
    """
    furthest = furthest_min or horizon_min
    chosen = market.days if days is None else tuple(sorted(days))
    spans = [s for s in sessions_between(chosen[0], chosen[-1]) if s.day in chosen] if chosen else []
    error = total = 0.0
    for one in oracle_forecast(settings, market, horizon_min).values():
        inside = np.zeros(len(one.ts), bool)
        for session in spans:
            bounds = session.open_ts + contract.BAR_S * (window_min - 1), session.close_ts - contract.BAR_S * furthest
            first, last = np.searchsorted(one.ts, bounds)
            inside[first:last] = True
        error += float(np.sum((one.realised[inside] - one.forecast[inside]) ** 2))
        total += float(np.sum(one.realised[inside] ** 2))
    if total == 0.0:
        raise ValueError(f"the market has no forecast with a target on {[day.isoformat() for day in chosen]}")
    return 1.0 - error / total


def attainable_skills(
    settings: SimulatedMarket, market: Market, horizons_min: Sequence[int], days: Collection[date], window_min: int
) -> dict[int, float]:
    """The skill attainable to one model of these horizons, by horizon, on the very windows that it is judged by."""
    furthest = max(horizons_min)
    return {
        minutes: attainable_skill(settings, market, minutes, days, window_min=window_min, furthest_min=furthest)
        for minutes in horizons_min
    }


def closed_form_skill(settings: SimulatedMarket, horizon_min: int, minutes: int = 390) -> float:
    """Attainable skill under constant variance, with every one of a session's `minutes` traded.

    The mean over the as-of minutes i = 1..minutes - horizon_min, since x starts at 0 at the open:
    Var(forecast_i) = (g A_h)² (1 - d^2i) / (1 - d²) with A_k = (1 - d^k) / (1 - d), and the unpredictable part
    has variance Σ_{k<h} (1 + g A_k)², both in units of Var(u). Derivation: docs/simulated_market.md.
    """
    gain, decay = settings.momentum_gain, settings.momentum_decay
    reach = (1 - decay ** np.arange(horizon_min + 1)) / (1 - decay)
    unpredictable = np.sum((1 + gain * reach[:-1]) ** 2)
    as_of = np.arange(1, minutes - horizon_min + 1)
    predictable = np.mean((gain * reach[-1]) ** 2 * (1 - decay ** (2 * as_of)) / (1 - decay**2))
    return float(predictable / (predictable + unpredictable))


def _grid(market: Market) -> _Grid:
    sessions = sessions_between(market.days[0], market.days[-1])
    shape = (len(market.tickers), len(sessions), max(session.minutes for session in sessions))
    close, first_open = np.full(shape, np.nan), np.full(shape, np.nan)
    opens = np.array([session.open_ts for session in sessions], np.int64)
    lengths = np.array([session.minutes for session in sessions], np.int64)
    for i, ticker in enumerate(market.tickers):
        bars = market.bars[ticker]
        row = np.searchsorted(opens, bars.ts, side="right") - 1
        minute = (bars.ts - opens[row]) // contract.BAR_S
        inside = (row >= 0) & (minute < lengths[row])
        close[i, row[inside], minute[inside]] = bars.close[inside]
        first_open[i, row[inside], minute[inside]] = bars.open[inside]
    traded = ~np.isnan(close)
    newest = np.maximum.accumulate(np.where(traded, np.arange(shape[2]), -1), axis=2)
    first = np.argmax(traded, axis=2)[..., None]
    log_open = np.log(np.take_along_axis(first_open, first, axis=2))
    carried = np.take_along_axis(np.log(close), np.maximum(newest, 0), axis=2)
    log_close = np.where(newest >= 0, carried, log_open)
    log_return = np.diff(log_close, axis=2, prepend=log_open)
    return _Grid(sessions, traded, np.where(traded, log_return, 0.0), log_close)


def _momentum(grid: _Grid, gain: float, decay: float) -> NDArray[np.float64]:
    """The momentum x after each minute, (tickers, sessions, minutes); it stands still where nothing trades."""
    momentum = np.empty_like(grid.log_return)
    x = np.zeros(momentum.shape[:2])
    for minute in range(momentum.shape[2]):
        x = np.where(grid.traded[:, :, minute], (decay - gain) * x + grid.log_return[:, :, minute], x)
        momentum[:, :, minute] = x
    return momentum

"""A simulated market whose attainable forecast skill is known exactly (docs/simulated_market.md).

It has the habits of real minute bars that break pipelines (half days, halts, missing minutes, gaps over
night, a busy open and close, clustered volatility, a common factor) and one planted momentum.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

from app import contract
from app.errors import SettingsError
from app.ingest.ticker_bars import Floats, Ints, Mask, TickerBars
from app.sessions import Session, last_sessions
from embedded.market.bars import Market
from embedded.market.oracle import (
    Forecast,
    attainable_skill,
    attainable_skills,
    closed_form_skill,
    oracle_forecast,
)

__all__ = [
    "Forecast",
    "SimulatedMarket",
    "attainable_skill",
    "attainable_skills",
    "closed_form_skill",
    "oracle_forecast",
    "settings_from_flags",
    "simulate",
]

# Width of a bar's wicks and of the step from one close to the next open, in units of the minute's volatility.
_WICK = 0.4
_OPEN_STEP = 0.15


@dataclass(frozen=True)
class SimulatedMarket:
    """Settings of a simulated market; the defaults need no network and span a half day."""

    seed: Annotated[int, Field(ge=0, description="of everything random")] = 7
    tickers: Annotated[int, Field(ge=1, le=20_000, description="SIM001, SIM002, ...")] = 20
    sessions: Annotated[int, Field(ge=1, le=260, description="consecutive sessions of the XNYS calendar")] = 12
    last_day: Annotated[date, Field(description="the last session is on or before this New York date")] = date(
        2025, 12, 5
    )
    momentum_gain: Annotated[
        float, Field(ge=0, lt=1, description="share of the momentum that the next minute's return repeats")
    ] = 0.08
    momentum_decay: Annotated[
        float, Field(ge=0, lt=1, description="share of the momentum that survives a traded minute")
    ] = 0.9
    minute_volatility: Annotated[
        float, Field(gt=0, le=0.05, description="root mean square of u in one minute, as a log return")
    ] = 5e-4
    volatility_spread: Annotated[float, Field(ge=0, le=1, description="sd over tickers of log volatility")] = 0.3
    intraday_shape: Annotated[
        float, Field(ge=0, le=5, description="height of the U of volatility and volume; 0 is flat")
    ] = 1.0
    clustering: Annotated[float, Field(ge=0, le=1.5, description="sd over time of log volatility; 0 is constant")] = 0.4
    half_life_min: Annotated[float, Field(gt=0, description="half-life of a volatility cluster")] = 120.0
    market_share: Annotated[
        float, Field(ge=0, lt=1, description="share of u's variance that is the market's, for a beta of 1")
    ] = 0.3
    beta_spread: Annotated[float, Field(ge=0, le=1, description="sd over tickers of beta around 1")] = 0.3
    gap_volatility: Annotated[float, Field(ge=0, le=0.2, description="sd of the log gap over night")] = 0.006
    missing_share: Annotated[float, Field(ge=0, le=0.5, description="chance that a minute has no bar")] = 0.003
    halt_share: Annotated[float, Field(ge=0, le=1, description="chance of a halt in a ticker's session")] = 0.02
    halt_min: Annotated[int, Field(ge=2, le=60, description="shortest halt, minutes")] = 5
    halt_max: Annotated[int, Field(ge=2, le=60, description="longest halt, minutes")] = 30
    volume: Annotated[float, Field(ge=1, description="typical volume of a minute, shares")] = 20_000.0

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        if self.halt_max < self.halt_min:
            raise ValueError(f"halt_max={self.halt_max} must be at least halt_min={self.halt_min}")


def settings_from_flags(flags: Sequence[str]) -> SimulatedMarket:
    """Settings from ``name=value`` flags; SettingsError names the flag and what is allowed."""
    names = [field.name for field in dataclasses.fields(SimulatedMarket)]
    values: dict[str, Any] = {}
    for flag in flags:
        name, equals, value = flag.partition("=")
        if not equals:
            raise SettingsError(f"--sim {flag!r} is not of the form name=value, e.g. tickers=50")
        if name not in names:
            raise SettingsError(f"unknown setting of the simulated market {name!r}: allowed are {', '.join(names)}")
        values[name] = value
    try:
        return SimulatedMarket(**values)
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        name = ".".join(str(part) for part in error["loc"])
        message = str(error["msg"]).removeprefix("Value error, ")
        where = f"{name}={values[name]!r}: " if name in values else ""
        raise SettingsError(f"--sim {where}{message[0].lower()}{message[1:]}") from exc


def simulate(settings: SimulatedMarket) -> Market:
    """The market that `settings` describe: the same one each time.

    Prices are float32 values in float64 arrays, Yahoo's form. A ticker's bars do not depend on how many
    other tickers there are. Equal to the bit on one machine; another numpy may round the last bit of an
    exponential differently.
    """
    sessions = last_sessions(settings.sessions, settings.last_day)
    shape = (len(sessions), max(session.minutes for session in sessions))
    lengths = np.array([session.minutes for session in sessions])
    draws = _draw(settings, lengths, shape)
    state = _clusters(draws.cluster, settings)
    volatility = settings.minute_volatility * draws.level[:, None, None] * _u_shape(lengths, shape, 1.5, settings)
    common = math.sqrt(settings.market_share) * draws.beta[:, None, None] * np.exp(state[0]) * draws.market
    own = math.sqrt(1 - settings.market_share) * np.exp(state[1:]) * draws.shock
    returns = _returns(np.where(draws.traded, volatility * (common + own), 0.0), draws.traded, settings)
    busy = _u_shape(lengths, shape, 3.0, settings) * np.exp(0.8 * state[1:] + 0.3 * np.abs(draws.shock))
    volume = np.maximum(1, draws.size[:, None, None] * busy * np.exp(0.4 * draws.volume)).astype(np.int64)
    return _market(sessions, draws, returns, volatility * np.exp(state[1:]), volume)


class _Draws(NamedTuple):
    """Everything random: (tickers,), (tickers, sessions) or (tickers, sessions, minutes)."""

    level: Floats  # of volatility, around 1
    beta: Floats
    size: Floats  # typical volume of a minute, shares
    log_price: Floats  # before the first session
    gap: Floats  # log step into each session
    market: Floats  # (sessions, minutes), the common shock, standard normal like the ones below
    cluster: Floats  # (1 + tickers, sessions, minutes): the market's shocks of volatility, then each ticker's
    shock: Floats
    step: Floats
    wick_up: Floats
    wick_down: Floats
    volume: Floats
    traded: Mask


def _draw(settings: SimulatedMarket, lengths: Ints, shape: tuple[int, int]) -> _Draws:
    """Draw the market's numbers and each ticker's, every ticker from its own stream."""
    rng = np.random.default_rng([settings.seed, 0])
    market, cluster = rng.standard_normal((2, *shape))
    gap = rng.standard_normal(shape[0])
    each = [
        _draw_ticker(settings, lengths, gap, np.random.default_rng([settings.seed, i + 1]), shape)
        for i in range(settings.tickers)
    ]
    columns: list[Any] = [np.array(column) for column in zip(*each, strict=True)]
    level, beta, size, log_price, gaps, own_cluster, *rest = columns
    return _Draws(level, beta, size, log_price, gaps, market, np.concatenate([cluster[None], own_cluster]), *rest)


def _draw_ticker(
    settings: SimulatedMarket, lengths: Ints, market_gap: Floats, rng: np.random.Generator, shape: tuple[int, int]
) -> tuple[Any, ...]:
    """The fields of `_Draws` for one ticker, without the market's."""
    level = math.exp(settings.volatility_spread * rng.standard_normal())
    beta = 1 + settings.beta_spread * rng.standard_normal()
    size = settings.volume * math.exp(0.8 * rng.standard_normal())
    log_price = rng.uniform(math.log(20.0), math.log(400.0))
    share = settings.market_share
    gap = math.sqrt(share) * beta * market_gap + math.sqrt(1 - share) * rng.standard_normal(len(market_gap))
    normal = rng.standard_normal((6, *shape))
    traded = _traded(settings, lengths, shape, rng)
    return level, beta, size, log_price, settings.gap_volatility * level * gap, *normal, traded


def _traded(settings: SimulatedMarket, lengths: Ints, shape: tuple[int, int], rng: np.random.Generator) -> Mask:
    """Which minutes of one ticker trade, (sessions, minutes): drawn before and apart from any return."""
    minute = np.arange(shape[1])
    traded = (minute < lengths[:, None]) & (rng.random(shape) >= settings.missing_share)
    halted = rng.random(shape[0]) < settings.halt_share
    length = rng.integers(settings.halt_min, settings.halt_max + 1, shape[0])
    start = (1 + rng.random(shape[0]) * (lengths - length - 1)).astype(np.int64)
    inside = (minute >= start[:, None]) & (minute < (start + length)[:, None])
    return traded & ~(halted[:, None] & inside)


def _u_shape(lengths: Ints, shape: tuple[int, int], height: float, settings: SimulatedMarket) -> Floats:
    """A busy open and close, (sessions, minutes): mean square 1 over each session, however long it is."""
    minute = np.arange(shape[1])
    left = (lengths[:, None] - 1 - minute).clip(0)
    curve: Floats = 1 + settings.intraday_shape * height * (np.exp(-minute / 30) + 0.6 * np.exp(-left / 20))
    inside = minute < lengths[:, None]
    scale: Floats = np.sqrt(np.sum(inside * curve**2, axis=1) / lengths)
    return curve / scale[:, None]


def _clusters(shocks: Floats, settings: SimulatedMarket) -> Floats:
    """Log volatility over time, an AR(1) of the half-life that runs through the sessions.

    shocks: (series, sessions, minutes), standard normal. Shifted so that the mean of the variance is 1.
    """
    decay = 0.5 ** (1 / settings.half_life_min)
    flat = shocks.reshape(len(shocks), -1).T.copy()  # (all minutes, series): a step is one row
    flat[1:] *= math.sqrt(1 - decay**2)
    for now in range(1, len(flat)):
        flat[now] += decay * flat[now - 1]
    return (settings.clustering * flat.T - settings.clustering**2).reshape(shocks.shape)


def _returns(u: Floats, traded: Mask, settings: SimulatedMarket) -> Floats:
    """Plant the momentum: r = gain x + u, then x = decay x + u, on traded minutes only; x = 0 at each open."""
    returns = np.zeros_like(u)
    x = np.zeros(u.shape[:2])
    for minute in range(u.shape[2]):
        trades = traded[:, :, minute]
        returns[:, :, minute] = np.where(trades, settings.momentum_gain * x + u[:, :, minute], 0.0)
        x = np.where(trades, settings.momentum_decay * x + u[:, :, minute], x)
    return returns


def _market(sessions: tuple[Session, ...], draws: _Draws, returns: Floats, volatility: Floats, volume: Ints) -> Market:
    """Bars from returns: open, high and low around the closes, in float32, without the minutes that did not trade."""
    within = np.cumsum(returns, axis=2)
    before = np.cumsum(draws.gap + np.roll(within[:, :, -1], 1, axis=1) * (np.arange(len(sessions)) > 0), axis=1)
    session_open = (draws.log_price[:, None] + before)[..., None]
    log_close = session_open + within
    log_before = log_close - returns  # the last close, or the session's open
    first = np.cumsum(draws.traded, axis=2) == 1
    log_open = log_before + np.where(first, 0.0, _OPEN_STEP * volatility * draws.step)
    log_high = np.maximum(log_open, log_close) + _WICK * volatility * np.abs(draws.wick_up)
    log_low = np.minimum(log_open, log_close) - _WICK * volatility * np.abs(draws.wick_down)
    # Rounding is monotonic, so that low <= open, close <= high survives it.
    open_, high, low, close = (
        np.exp(log).astype(np.float32).astype(np.float64) for log in (log_open, log_high, log_low, log_close)
    )
    opens = np.array([session.open_ts for session in sessions], np.int64)
    ts = opens[:, None] + contract.BAR_S * np.arange(returns.shape[2], dtype=np.int64)
    width = max(3, len(str(len(returns))))
    return Market(
        {
            f"SIM{i + 1:0{width}d}": TickerBars(
                ts[at], open_[i][at], high[i][at], low[i][at], close[i][at], volume[i][at]
            )
            for i, at in enumerate(draws.traded)
        }
    )

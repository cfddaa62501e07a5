"""The simulated market has the habits it promises, and its oracle is the best forecast there is."""

from __future__ import annotations

import math
from dataclasses import astuple, replace
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.errors import SettingsError
from app.ingest.ticker_bars import Floats, TickerBars
from app.sessions import Session, last_sessions, sessions_between
from embedded.market.bars import Market, read_bars_file
from embedded.market.simulated import (
    SimulatedMarket,
    attainable_skill,
    attainable_skills,
    closed_form_skill,
    oracle_forecast,
    settings_from_flags,
    simulate,
)

HORIZON_MIN = 5
DEFAULT = SimulatedMarket()
GAPLESS = SimulatedMarket(missing_share=0, halt_share=0)
WIDE = SimulatedMarket(tickers=60, sessions=20, missing_share=0, halt_share=0)
APART = replace(WIDE, market_share=0.0)
HALF_DAY = date(2025, 11, 28)


@pytest.fixture(scope="module")
def market() -> Market:
    return simulate(DEFAULT)


@pytest.fixture(scope="module")
def wide() -> Market:
    return simulate(WIDE)


def sessions_of(settings: SimulatedMarket) -> tuple[Session, ...]:
    return last_sessions(settings.sessions, settings.last_day)


def in_session(bars: TickerBars, session: Session) -> TickerBars:
    return bars.between(session.open_ts, session.close_ts)


def returns_of(bars: TickerBars) -> Floats:
    """Log returns of one session; the first one is from its open."""
    return np.diff(np.log(np.concatenate([bars.open[:1], bars.close])))


def grid_of_returns(settings: SimulatedMarket, market: Market) -> Floats:
    """(tickers, full sessions, 390) of a market without missing minutes."""
    full = [session for session in sessions_of(settings) if session.minutes == 390]
    return np.array([[returns_of(in_session(bars, s)) for s in full] for bars in market.bars.values()])


def equal(a: TickerBars, b: TickerBars) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(astuple(a), astuple(b), strict=True))


# --- the calendar ---------------------------------------------------------------------------------


def test_the_default_span_is_twelve_sessions_with_a_half_day_and_without_thanksgiving(market: Market) -> None:
    assert len(market.days) == 12
    assert HALF_DAY in market.days
    assert date(2025, 11, 27) not in market.days
    assert market.end == datetime(2025, 12, 5, 21, 0, tzinfo=UTC)


def test_a_half_day_has_210_minutes_and_other_days_have_390() -> None:
    market = simulate(GAPLESS)
    for session in sessions_of(GAPLESS):
        minutes = len(in_session(market.bars["SIM003"], session))
        assert minutes == session.minutes == (210 if session.day == HALF_DAY else 390)


def test_sessions_begin_at_half_past_nine_in_new_york_in_summer_and_winter() -> None:
    winter, summer = sessions_between(date(2026, 3, 6), date(2026, 3, 9))
    assert datetime.fromtimestamp(winter.open_ts, UTC) == datetime(2026, 3, 6, 14, 30, tzinfo=UTC)
    assert datetime.fromtimestamp(summer.open_ts, UTC) == datetime(2026, 3, 9, 13, 30, tzinfo=UTC)


# --- the bars -------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_market_and_another_seed_another(market: Market) -> None:
    again, other = simulate(DEFAULT), simulate(replace(DEFAULT, seed=8))
    assert again.tickers == market.tickers
    assert all(equal(again.bars[ticker], market.bars[ticker]) for ticker in market.tickers)
    assert not np.array_equal(other.bars["SIM001"].close[:100], market.bars["SIM001"].close[:100])


def test_a_ticker_does_not_depend_on_how_many_others_there_are(market: Market) -> None:
    few = simulate(replace(DEFAULT, tickers=3))
    assert few.tickers == ("SIM001", "SIM002", "SIM003")
    assert all(equal(few.bars[ticker], market.bars[ticker]) for ticker in few.tickers)


def test_prices_are_float32_values(market: Market) -> None:
    for bars in market.bars.values():
        for price in (bars.open, bars.high, bars.low, bars.close):
            assert np.array_equal(price, price.astype(np.float32).astype(np.float64))


def test_the_bars_pass_the_checks_of_a_bars_file(market: Market, tmp_path: Path) -> None:
    columns = {
        name: np.concatenate([getattr(market.bars[t], name) for t in market.tickers])
        for name in TickerBars.__annotations__
    }
    table = pa.table(columns | {"ticker": np.repeat(market.tickers, [len(market.bars[t]) for t in market.tickers])})
    ts = table["ts"].cast(pa.timestamp("s", tz="UTC"))
    pq.write_table(table.set_column(table.schema.get_field_index("ts"), "ts", ts), tmp_path / "bars.parquet")
    read = read_bars_file(tmp_path / "bars.parquet")
    assert all(equal(read.bars[ticker], market.bars[ticker]) for ticker in market.tickers)


def test_single_minutes_are_missing_and_trading_halts_for_minutes_on_end(market: Market) -> None:
    runs: list[int] = []
    for bars in market.bars.values():
        for session in sessions_of(DEFAULT):
            part = in_session(bars, session)
            edges = np.concatenate([[session.open_ts - 60], part.ts, [session.close_ts]])
            runs += [int(gap) for gap in np.diff(edges) // 60 - 1 if gap]
    halts = [run for run in runs if run >= DEFAULT.halt_min]
    assert 1 <= len(halts) <= 15
    assert max(halts) <= DEFAULT.halt_max + 2
    minutes = DEFAULT.tickers * sum(session.minutes for session in sessions_of(DEFAULT))
    assert 0.002 < sum(run for run in runs if run < DEFAULT.halt_min) / minutes < 0.004


def test_volume_and_volatility_are_higher_at_the_open_and_at_the_close_than_at_noon(wide: Market) -> None:
    square = np.mean(grid_of_returns(WIDE, wide) ** 2, axis=(0, 1))
    full = [session for session in sessions_of(WIDE) if session.minutes == 390]
    volume = np.mean(
        [[in_session(b, s).volume / b.volume.mean() for s in full] for b in wide.bars.values()], axis=(0, 1)
    )
    for curve in (square, volume):
        noon = curve[150:240].mean()
        assert curve[:15].mean() > 1.5 * noon
        assert curve[-15:].mean() > 1.3 * noon


def test_volume_is_higher_where_volatility_is() -> None:
    settings = replace(WIDE, intraday_shape=0.0)
    correlations = []
    for bars in simulate(settings).bars.values():
        size = np.abs(np.diff(np.log(bars.close)))
        correlations.append(np.corrcoef(np.log(bars.volume[1:]), size)[0, 1])
    assert np.mean(correlations) > 0.2


def test_volatility_clusters_unless_clustering_is_off() -> None:
    def echo(clustering: float) -> float:
        settings = replace(WIDE, intraday_shape=0.0, clustering=clustering)
        square = grid_of_returns(settings, simulate(settings)) ** 2
        square = square / square.mean(axis=(1, 2), keepdims=True) - 1
        # 30 minutes apart the momentum's own echo is gone.
        return float(np.mean(square[:, :, 30:] * square[:, :, :-30]) / np.mean(square**2))

    assert echo(0.4) > 0.05
    assert abs(echo(0.0)) < 0.01


def test_tickers_share_a_market_factor_unless_its_share_is_nil() -> None:
    def mean_correlation(market_share: float) -> float:
        settings = replace(WIDE, market_share=market_share)
        returns = grid_of_returns(settings, simulate(settings)).reshape(settings.tickers, -1)
        return float((np.corrcoef(returns).sum() - settings.tickers) / settings.tickers / (settings.tickers - 1))

    assert 0.2 < mean_correlation(0.3) < 0.4
    assert abs(mean_correlation(0.0)) < 0.01


def test_prices_jump_over_night(wide: Market) -> None:
    sessions = sessions_of(WIDE)
    gaps = [
        math.log(in_session(bars, after).open[0] / in_session(bars, before).close[-1])
        for bars in wide.bars.values()
        for before, after in pairwise(sessions)
    ]
    assert 0.7 < np.std(gaps) / WIDE.gap_volatility < 1.4


# --- the oracle -----------------------------------------------------------------------------------


def pooled(settings: SimulatedMarket, market: Market) -> tuple[Floats, Floats, Floats]:
    """Forecasts, realised returns and New York sessions (by number) of all tickers, concatenated."""
    every = oracle_forecast(settings, market, HORIZON_MIN).values()
    opens = [session.open_ts for session in sessions_of(settings)]
    return (
        np.concatenate([one.forecast for one in every]),
        np.concatenate([one.realised for one in every]),
        np.searchsorted(opens, np.concatenate([one.ts for one in every]), side="right").astype(np.float64) - 1,
    )


def skill(forecast: Floats, realised: Floats) -> float:
    return float(1 - np.sum((realised - forecast) ** 2) / np.sum(realised**2))


def test_the_oracle_agrees_with_a_plain_loop_over_the_bars() -> None:
    settings = replace(DEFAULT, tickers=2, sessions=6, halt_share=0.5, missing_share=0.05)
    market = simulate(settings)
    gain, decay = settings.momentum_gain, settings.momentum_decay
    for ticker, bars in market.bars.items():
        wanted = []
        for session in sessions_of(settings):
            close = {int(ts): float(c) for ts, c in zip(bars.ts, bars.close, strict=True)}
            x, last = 0.0, None
            for ts in range(session.open_ts, session.close_ts, 60):
                if ts not in close:
                    continue
                before = last if last is not None else float(bars.open[bars.ts == ts][0])
                x = (decay - gain) * x + math.log(close[ts] / before)
                last = close[ts]
                if ts + 60 * HORIZON_MIN < session.close_ts:
                    ahead = [t for t in range(ts + 60, ts + 60 * HORIZON_MIN + 1, 60) if t in close]
                    forecast = gain * x * sum(decay**k for k in range(len(ahead)))
                    wanted.append((ts, forecast, math.log(close[ahead[-1]] / last) if ahead else 0.0))
        found = oracle_forecast(settings, market, HORIZON_MIN)[ticker]
        assert found.ts.tolist() == [row[0] for row in wanted]
        np.testing.assert_allclose(found.forecast, [row[1] for row in wanted], rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(found.realised, [row[2] for row in wanted], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "allowed_error"),
    [(WIDE, 0.06), (replace(WIDE, halt_share=0.2, missing_share=0.02), 0.06), (APART, 0.03)],
    ids=["all minutes", "with gaps", "no market factor"],
)
def test_realised_returns_regress_on_the_forecast_with_slope_one(
    settings: SimulatedMarket, allowed_error: float
) -> None:
    forecast, realised, session = pooled(settings, simulate(settings))
    slope = np.sum(forecast * realised) / np.sum(forecast**2)
    # Errors of one session hang together by overlap and by the market factor: sessions are the clusters.
    score = np.bincount(session.astype(int), forecast * (realised - slope * forecast))
    error = math.sqrt(np.sum(score**2)) / np.sum(forecast**2)
    assert error < allowed_error
    assert abs(slope - 1) < 3 * error


@pytest.mark.parametrize("scale", [0.8, 1.2])
def test_a_scaled_oracle_is_worse(scale: float) -> None:
    # Without the market factor a fifth is eight standard errors of the slope.
    forecast, realised, _ = pooled(APART, simulate(APART))
    assert skill(scale * forecast, realised) < skill(forecast, realised)


def test_a_regression_on_ten_returns_does_not_beat_the_oracle(wide: Market) -> None:
    returns = grid_of_returns(WIDE, wide)
    past = np.lib.stride_tricks.sliding_window_view(returns, 10, axis=2)[:, :, :-HORIZON_MIN]
    after = np.lib.stride_tricks.sliding_window_view(returns, HORIZON_MIN, axis=2).sum(axis=3)[:, :, 10:]
    design, target = past.reshape(-1, 10), after.reshape(-1)
    fitted = design @ np.linalg.lstsq(design, target)[0]
    x = np.zeros(returns.shape[:2])
    momentum = []
    for minute in range(returns.shape[2]):
        x = (WIDE.momentum_decay - WIDE.momentum_gain) * x + returns[:, :, minute]
        momentum.append(x)
    reach = (1 - WIDE.momentum_decay**HORIZON_MIN) / (1 - WIDE.momentum_decay)
    oracle = WIDE.momentum_gain * reach * np.stack(momentum, axis=2)[:, :, 9:-HORIZON_MIN]
    # Ten coefficients fitted to the very returns they are judged by gain about 10 / (independent targets):
    # of 440,000 targets that overlap five-fold and share a factor some 20,000 are, hence the allowance.
    assert skill(fitted, target) < skill(oracle.reshape(-1), target) + 0.0005


def test_attainable_skill_is_near_its_closed_form_under_constant_variance() -> None:
    settings = replace(APART, clustering=0.0, intraday_shape=0.0)
    market = simulate(settings)
    # Its standard deviation over seeds is 0.002 at five minutes.
    assert attainable_skill(settings, market, HORIZON_MIN) == pytest.approx(
        closed_form_skill(settings, HORIZON_MIN), abs=0.006
    )
    assert attainable_skill(settings, market, 1) == pytest.approx(closed_form_skill(settings, 1), abs=0.003)


def test_the_closed_form_agrees_with_values_worked_out_by_hand() -> None:
    # One minute: 0.08² / (1 - 0.9²) = 0.033684 of predictable against 1 of unpredictable variance.
    assert closed_form_skill(DEFAULT, 1, minutes=10**6) == pytest.approx(0.033684 / 1.033684, abs=1e-5)
    # Five: (0.08 * 4.0951)² / 0.19 = 0.564886 against 1 + 1.08² + 1.152² + 1.2168² + 1.27512² = 6.600037.
    assert closed_form_skill(DEFAULT, 5, minutes=10**6) == pytest.approx(0.564886 / 7.164923, abs=1e-5)
    assert closed_form_skill(DEFAULT, 5) < closed_form_skill(DEFAULT, 5, minutes=10**6)


def test_without_momentum_nothing_is_attainable() -> None:
    settings = replace(DEFAULT, momentum_gain=0.0)
    assert attainable_skill(settings, simulate(settings), HORIZON_MIN) == 0.0


def test_attainable_skill_of_some_days_counts_these_days_alone(market: Market) -> None:
    forecast, realised, session = pooled(DEFAULT, market)
    last_two = session >= 10
    expected = skill(forecast[last_two], realised[last_two])
    assert attainable_skill(DEFAULT, market, HORIZON_MIN, market.days[-2:]) == pytest.approx(expected)
    with pytest.raises(ValueError, match="no forecast with a target"):
        attainable_skill(DEFAULT, market, HORIZON_MIN, [date(2025, 11, 27)])


def test_attainable_skills_are_those_on_the_windows_of_a_model_of_all_horizons(market: Market) -> None:
    """By a plain sum over the forecasts whose window, and whose furthest target, lie in the session."""
    days, window, furthest = market.days[-2:], 60, 10
    found = attainable_skills(DEFAULT, market, (1, furthest), days, window)
    assert list(found) == [1, furthest]
    sessions = [session for session in sessions_of(DEFAULT) if session.day in days]
    for horizon in found:
        error = total = 0.0
        for one in oracle_forecast(DEFAULT, market, horizon).values():
            for ts, forecast, realised in zip(*one, strict=True):
                for session in sessions:
                    minute = (ts - session.open_ts) // 60
                    if window - 1 <= minute < session.minutes - furthest:
                        error, total = error + (realised - forecast) ** 2, total + realised**2
        assert found[horizon] == pytest.approx(1 - error / total)
    assert found[1] != attainable_skill(DEFAULT, market, 1, days)


# --- settings -------------------------------------------------------------------------------------


def test_flags_set_settings_by_name() -> None:
    settings = settings_from_flags(["tickers=3", "last_day=2026-03-20", "momentum_gain=0.1"])
    assert settings == SimulatedMarket(tickers=3, last_day=date(2026, 3, 20), momentum_gain=0.1)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("tickers", "is not of the form name=value"),
        ("ticker=3", "unknown setting of the simulated market 'ticker': allowed are seed, tickers"),
        ("tickers=many", "--sim tickers='many': input should be a valid integer"),
        ("momentum_decay=1", "--sim momentum_decay='1': input should be less than 1"),
        ("halt_max=4", "--sim halt_max=4 must be at least halt_min=5"),
    ],
)
def test_a_wrong_flag_is_refused_with_what_is_allowed(flag: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_from_flags([flag])
    assert message in str(caught.value)

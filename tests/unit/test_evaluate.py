"""Metrics by hand and against other implementations; what is noise is not called significant."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from app.dataset.features import FloatArray
from app.errors import TrainingError
from app.storage import to_json
from app.training.day_bootstrap import DayBootstrap
from app.training.evaluate import HorizonMetrics, SplitMetrics, evaluate, mean_skill

LAST = np.array([100.0, 100.0, 50.0, 80.0])
FUTURE = np.array([110.0, 95.0, 50.0, 84.0])
MOVES = np.log(FUTURE / LAST)
OPEN = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)  # 9:30 in New York
TWO_DAYS = 12.7062 / 1.959964 * math.sqrt(2)  # Student's quantile over the normal one, and the small sample's root


def minutes(*, days: int, each: int, tickers: int = 1) -> npt.NDArray[np.int64]:
    """Epoch seconds of windows: `each` minutes of consecutive days, by ticker."""
    one = [
        int((OPEN + timedelta(days=day, minutes=minute)).timestamp()) for day in range(days) for minute in range(each)
    ]
    return np.tile(np.array(one, np.int64), tickers)


def judge(
    predicted: npt.ArrayLike,
    last: FloatArray = LAST,
    future: FloatArray = FUTURE,
    as_of: npt.NDArray[np.int64] | None = None,
    **more: Any,
) -> HorizonMetrics:
    """Metrics of forecasts (n,) or (n, 4) at one horizon; by default of one day."""
    forecast = np.asarray(predicted, np.float64).reshape(len(last), 1, -1)
    found = split(forecast, last, future[:, None], as_of, (5,), **more)
    return found.horizons[5]


def split(
    forecast: FloatArray,
    last: FloatArray,
    future: FloatArray,
    as_of: npt.NDArray[np.int64] | None,
    horizons_min: tuple[int, ...],
    **more: Any,
) -> SplitMetrics:
    at = minutes(days=1, each=len(last)) if as_of is None else as_of
    return evaluate(
        forecast, last_price=last, future_price=future, as_of=at, horizons_min=horizons_min, **{"seed": 7, **more}
    )


def market(
    days: int, each: int = 60, tickers: int = 8, signal: float = 0.0, seed: int = 1
) -> tuple[FloatArray, FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Forecasts, last and future prices, and minutes, all (n,): the forecast explains `signal` of the variance."""
    random = np.random.default_rng(seed)
    count = days * each * tickers
    forecast = math.sqrt(signal or 0.01) * 1e-3 * random.normal(0, 1, count)
    noise = 1e-3 * random.normal(0, 1, count)
    actual = forecast + math.sqrt(1 - signal) * noise if signal else noise
    last = np.exp(random.normal(4, 1, count))
    return forecast, last, last * np.exp(actual), minutes(days=days, each=each, tickers=tickers)


def test_a_perfect_forecast_has_no_error_and_all_the_skill() -> None:
    found = judge(MOVES)
    assert found.windows == 4
    assert found.mae_usd == pytest.approx(0, abs=1e-12)
    assert (found.skill, found.direction) == (1, 1)
    # Persistence misses by 10, 5, 0 and 4 USD.
    assert found.mae_persistence_usd == 19 / 4
    assert found.rmse_persistence_usd == pytest.approx(math.sqrt(141 / 4))


def test_the_forecast_that_the_price_stays_is_persistence_itself() -> None:
    found = judge(np.zeros(4))
    assert (found.mae_usd, found.rmse_usd) == (found.mae_persistence_usd, found.rmse_persistence_usd)
    assert (found.mae_bp, found.rmse_bp) == (found.mae_persistence_bp, found.rmse_persistence_bp)
    assert (found.skill, found.direction) == (0, 0)


def test_errors_are_of_the_price_in_usd_and_of_the_return_in_basis_points() -> None:
    found = judge(np.log([1.05, 1.05]), np.array([100.0, 200.0]), np.array([110.0, 200.0]))
    assert found.mae_usd == pytest.approx((5 + 10) / 2)
    assert found.rmse_usd == pytest.approx(math.sqrt((25 + 100) / 2))
    errors_bp = [1e4 * math.log(1.10 / 1.05), 1e4 * math.log(1.05)]
    assert found.mae_bp == pytest.approx(sum(errors_bp) / 2)
    assert found.rmse_bp == pytest.approx(math.sqrt((errors_bp[0] ** 2 + errors_bp[1] ** 2) / 2))
    assert found.mae_persistence_bp == pytest.approx(1e4 * math.log(1.10) / 2)


def test_skill_is_the_share_of_squared_error_that_is_saved_and_may_be_negative() -> None:
    assert judge(MOVES / 2).skill == pytest.approx(0.75)
    assert judge(-MOVES).skill == pytest.approx(-3)
    assert mean_skill(MOVES[:, None] / 2, LAST, FUTURE[:, None]) == pytest.approx(0.75)


def test_direction_counts_right_signs_among_the_prices_that_moved() -> None:
    assert judge(np.full(4, 0.1)).direction == pytest.approx(2 / 3)


def test_the_linear_model_is_a_rival_of_its_own() -> None:
    assert judge(MOVES / 2, linear=np.zeros((4, 1))).over_linear == pytest.approx(0.75)
    assert judge(MOVES / 2, linear=MOVES[:, None] / 2).over_linear == pytest.approx(0)
    assert judge(np.zeros(4), linear=MOVES[:, None] / 2).over_linear == pytest.approx(-3)
    assert judge(MOVES).over_linear is None


def test_the_split_tells_each_horizon_and_the_mean_of_their_skills() -> None:
    forecast = np.stack([MOVES, MOVES / 2], axis=1)[..., None]
    future = np.stack([FUTURE, FUTURE], axis=1)
    found = split(forecast, LAST, future, None, (1, 10))
    assert (found.windows, found.days) == (4, 1)
    assert {minute: of.skill for minute, of in found.horizons.items()} == pytest.approx({1: 1.0, 10: 0.75})
    assert found.skill == pytest.approx(mean_skill(forecast[..., 0], LAST, future)) == pytest.approx(0.875)


def test_quantiles_are_told_by_how_many_returns_they_hold() -> None:
    quantiles = np.array([[-0.1, 0.0, 0.1], [-0.05, 0.0, 0.05], [0.0, 0.1, 0.2], [0.1, 0.2, 0.3]])
    found = judge(np.column_stack([np.zeros(4), quantiles]))
    # Returns of +0.095, -0.051, 0 and +0.049: inside, below, on the lower bound, below.
    assert found.coverage == 0.5
    assert found.width_bp == pytest.approx(1e4 * (0.2 + 0.1 + 0.2 + 0.2) / 4)
    assert found.below == {"p10": 0.75, "p50": 0.75, "p90": 1.0}
    assert judge(MOVES).coverage is None


def test_an_interval_is_drawn_from_whole_days() -> None:
    # Two days of two windows: the model saves 3/4 on the first, and doubles the error on the second.
    actual = np.array([0.01, -0.01, 0.02, 0.02])
    forecast = actual * np.array([0.5, 0.5, 1 - math.sqrt(2), 1 - math.sqrt(2)])
    found = judge(forecast, LAST, LAST * np.exp(actual), minutes(days=2, each=2))
    whole = 1 - (2 * 0.25e-4 + 2 * 8e-4) / (2 * 1e-4 + 2 * 4e-4)
    assert found.skill == pytest.approx(whole)
    # Days drawn twice are the extremes; what two days lack widens the distance from the whole.
    expected = [whole + (day - whole) * TWO_DAYS for day in (-1.0, 0.75)]
    assert found.skill_interval == pytest.approx(expected, rel=1e-4)
    assert found.significant is False
    assert found.direction_interval == (0, 1)  # no share lies beyond


def test_a_day_is_new_york_s() -> None:
    # The evening of 2 March and the night after it are one day there, and two in UTC.
    times = [datetime(2026, 3, 2, 23, 59, tzinfo=UTC), datetime(2026, 3, 3, 4, 59, tzinfo=UTC)]
    at = np.array([int(time.timestamp()) for time in times], np.int64)
    assert DayBootstrap(at, 7).days == 1
    assert DayBootstrap(np.append(at, at[-1] + 60), 7).days == 2


def test_one_day_gives_no_interval_and_claims_nothing() -> None:
    found = judge(MOVES, linear=np.zeros((4, 1)))
    assert (found.skill_interval, found.direction_interval, found.over_linear_interval) == (None, None, None)
    assert (found.significant, found.direction_significant, found.over_linear_significant) == (None, None, None)


def test_days_that_all_say_the_same_do_not_tell_how_far_days_differ() -> None:
    actual = np.array([0.01, -0.01, 0.02, 0.02])
    found = judge(np.array([1.0, 1.0, 1.0, -1.0]), LAST, LAST * np.exp(actual), minutes(days=2, each=2))
    assert (found.direction, found.direction_interval, found.direction_significant) == (0.5, None, None)


@pytest.mark.parametrize("days", [2, 3, 5, 10, 30])
def test_an_interval_from_few_days_misses_no_more_often_than_it_says(days: int) -> None:
    random, bootstrap = np.random.default_rng(1), DayBootstrap(minutes(days=days, each=1), 7)
    missed = 0
    for _ in range(400):
        interval = bootstrap.interval(random.normal(1, 0.1, days), np.ones(days))
        assert interval is not None
        missed += not interval[0] <= 1 <= interval[1]
    assert missed < 0.12 * 400  # 5 % are meant; without widening they are 50 % at two days and 26 % at three


def test_of_a_mean_of_days_the_interval_is_student_s() -> None:
    values = np.random.default_rng(1).normal(0, 1, 12)
    interval = DayBootstrap(minutes(days=12, each=1), 7).interval(values, np.ones(12))
    half = 2.201 * values.std(ddof=1) / math.sqrt(12)
    assert interval == pytest.approx((values.mean() - half, values.mean() + half), abs=0.12 * half)


def test_planted_skill_is_significant_and_noise_is_not() -> None:
    found = judge(*market(days=20, signal=0.1))
    assert found.skill == pytest.approx(0.1, abs=0.02)
    assert (found.significant, found.direction_significant, found.rank_ic_significant) == (True, True, True)
    noise = judge(*market(days=20))
    assert (noise.direction_significant, noise.rank_ic_significant) == (False, False)
    assert noise.skill < 0  # a forecast of nothing, spread by a tenth of the returns
    assert noise.significant is True


def test_the_same_seed_gives_the_same_intervals() -> None:
    made = market(days=5)
    assert judge(*made).skill_interval == judge(*made).skill_interval
    assert judge(*made).skill_interval != judge(*made, seed=8).skill_interval


def test_rank_ic_is_spearman_s_of_each_minute_ties_included() -> None:
    forecast, last, future, at = market(days=3, each=20, tickers=9, signal=0.3)
    forecast, future = forecast.round(4), last * np.exp(np.log(future / last).round(4))
    future[::50] = last[::50]
    kept = np.random.default_rng(2).random(len(at)) < 0.7  # between 2 and 9 tickers a minute
    forecast, last, future, at = forecast[kept], last[kept], future[kept], at[kept]
    found = judge(forecast, last, future, at)
    table = pd.DataFrame({"at": at, "forecast": forecast, "actual": np.log(future / last)})
    ranked = table.groupby("at")[["forecast", "actual"]].rank()
    each = [
        ranked[table["at"] == minute].corr().iloc[0, 1]
        for minute, count in table["at"].value_counts().items()
        if count >= 5
    ]
    assert 20 < len(each) < 60
    assert found.rank_ic_minutes == len(each)
    assert found.rank_ic == pytest.approx(np.mean(each))
    low, high = found.rank_ic_interval or (1.0, -1.0)
    assert low < np.mean(each) < high


def test_without_five_tickers_in_a_minute_there_is_no_rank_ic() -> None:
    found = judge(*market(days=3, tickers=4))
    assert (found.rank_ic, found.rank_ic_interval, found.rank_ic_significant, found.rank_ic_minutes) == (
        *(None, None, None),
        0,
    )


def test_forecasts_that_are_all_the_same_rank_nothing() -> None:
    forecast, last, future, at = market(days=3)
    assert judge(np.zeros(len(forecast)), last, future, at).rank_ic is None


def test_a_market_that_stands_still_is_no_division_by_zero() -> None:
    found = judge(np.zeros(4), LAST, LAST, minutes(days=2, each=2))
    assert (found.direction, found.rmse_usd, found.rmse_persistence_usd) == (None, 0, 0)
    assert math.isfinite(found.skill)
    assert found.skill_interval is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_forecasts_that_are_not_finite_are_told_and_not_averaged(value: float) -> None:
    forecast = np.zeros((4, 4))
    forecast[2, 3] = value
    with pytest.raises(TrainingError, match=r"1 of 4 forecasts are not finite: lower training\.learning_rate"):
        judge(forecast)


def test_metrics_are_stored_as_plain_json() -> None:
    forecast, last, future, at = market(days=2)
    quantiles = forecast[:, None] + 1e-3 * np.array([0.0, -1.0, 0.0, 1.0])
    stacked = np.stack([quantiles, quantiles], axis=1)
    futures = np.stack([future, future], axis=1)
    found = split(stacked, last, futures, at, (5, 10), linear=np.zeros((len(last), 2)))
    stored = json.loads(to_json(found.to_json()))  # which refuses NaN
    assert list(stored) == ["windows", "days", "skill", "horizons"]
    assert list(stored["horizons"]) == ["5", "10"]
    assert stored["horizons"]["5"]["skill_interval"] == list(found.horizons[5].skill_interval or ())
    assert stored["horizons"]["5"]["windows"] == len(last)

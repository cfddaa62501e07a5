"""Metrics by hand, against the forecast that the price stays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from app.training.evaluate import evaluate

LAST = np.array([100.0, 100.0, 50.0, 80.0])
FUTURE = np.array([110.0, 95.0, 50.0, 84.0])
MOVES = np.log(FUTURE / LAST)


def test_a_perfect_forecast_has_no_error_and_all_the_skill() -> None:
    found = evaluate(MOVES, LAST, FUTURE)
    assert found.windows == 4
    assert found.mae_usd == pytest.approx(0, abs=1e-12)
    assert (found.skill, found.direction) == (1, 1)
    # Persistence misses by 10, 5, 0 and 4 USD.
    assert found.mae_persistence_usd == 19 / 4
    assert found.rmse_persistence_usd == pytest.approx(math.sqrt(141 / 4))


def test_the_forecast_that_the_price_stays_is_persistence_itself() -> None:
    found = evaluate(np.zeros(4), LAST, FUTURE)
    assert (found.mae_usd, found.rmse_usd) == (found.mae_persistence_usd, found.rmse_persistence_usd)
    assert (found.mae_bp, found.rmse_bp) == (found.mae_persistence_bp, found.rmse_persistence_bp)
    assert (found.skill, found.direction) == (0, 0)


def test_errors_are_of_the_price_in_usd_and_of_the_return_in_basis_points() -> None:
    found = evaluate(np.log([1.05, 1.05]), np.array([100.0, 200.0]), np.array([110.0, 200.0]))
    assert found.mae_usd == pytest.approx((5 + 10) / 2)
    assert found.rmse_usd == pytest.approx(math.sqrt((25 + 100) / 2))
    errors_bp = [1e4 * math.log(1.10 / 1.05), 1e4 * math.log(1.05)]
    assert found.mae_bp == pytest.approx(sum(errors_bp) / 2)
    assert found.rmse_bp == pytest.approx(math.sqrt((errors_bp[0] ** 2 + errors_bp[1] ** 2) / 2))
    assert found.mae_persistence_bp == pytest.approx(1e4 * math.log(1.10) / 2)


def test_skill_is_the_share_of_squared_error_that_is_saved_and_may_be_negative() -> None:
    assert evaluate(MOVES / 2, LAST, FUTURE).skill == pytest.approx(0.75)
    assert evaluate(-MOVES, LAST, FUTURE).skill == pytest.approx(-3)


def test_direction_counts_right_signs_among_the_prices_that_moved() -> None:
    assert evaluate(np.array([0.1, 0.1, 0.1, 0.1]), LAST, FUTURE).direction == pytest.approx(2 / 3)


def test_a_market_that_stands_still_is_no_division_by_zero() -> None:
    found = evaluate(np.zeros(4), LAST, LAST)
    assert (found.direction, found.rmse_usd, found.rmse_persistence_usd) == (0, 0, 0)
    assert math.isfinite(found.skill)


def test_metrics_are_stored_by_their_names() -> None:
    assert evaluate(MOVES, LAST, FUTURE).to_json()["mae_persistence_usd"] == 19 / 4

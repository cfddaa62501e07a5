"""Predictions beside what happened, against loops over single numbers."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pytest

from dashboard.figures import error_chart, forecast_chart
from dashboard.forecasts import (
    COLUMNS,
    accuracy,
    horizons,
    join_outcomes,
    newest_moves,
    newest_of,
    of_ticker,
    rolling_errors,
    tickers,
)
from tests.dashboard import expected
from tests.dashboard.planted import HORIZONS, PREDICTED, as_of, predicted_return, predictions, price
from tests.fakes import with_column

MINUTES = 40


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """The objects come in any order."""
    return join_outcomes([predictions(part).select(list(COLUMNS)) for part in (range(20, 40), range(20))])


def at(minute: int) -> pd.Timestamp:
    return pd.Timestamp(as_of(minute)).tz_localize(None)


def test_a_prediction_meets_the_price_of_the_minute_that_it_is_about(frame: pd.DataFrame) -> None:
    for ticker in PREDICTED:
        for horizon in HORIZONS:
            rows = of_ticker(frame, ticker, horizon)
            assert list(rows["as_of"]) == [at(minute) for minute in range(MINUTES)]
            assert list(rows["target"]) == [at(minute + horizon) for minute in range(MINUTES)]
            seen = MINUTES - horizon
            assert list(rows["actual"][:seen]) == [price(ticker, minute + horizon) for minute in range(seen)]
            assert rows["actual"][seen:].isna().all()


def test_errors_are_those_of_single_predictions(frame: pd.DataFrame) -> None:
    for found, horizon in zip(accuracy(frame), HORIZONS, strict=True):
        error, still = expected.mean_errors(horizon, MINUTES)
        assert (found.mae_bp, found.mae_still_bp) == pytest.approx((error, still), rel=1e-9)
        assert found.known == (MINUTES - horizon) * len(PREDICTED)
        assert found.predictions == MINUTES * len(PREDICTED)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_an_error_over_time_is_the_mean_of_the_minutes_before(frame: pd.DataFrame, horizon: int) -> None:
    found = rolling_errors(frame, horizon, window_min=10)
    wanted = expected.rolling(horizon, MINUTES, 10)
    assert list(found["target"]) == [at(minute) for minute in sorted(wanted)]
    for name, place in (("error_bp", 0), ("still_bp", 1)):
        assert list(found[name]) == pytest.approx([wanted[minute][place] for minute in sorted(wanted)], rel=1e-9)


def test_a_minute_without_a_bar_has_no_outcome() -> None:
    table = predictions(minute for minute in range(10) if minute != 6)
    rows = of_ticker(join_outcomes([table.select(list(COLUMNS))]), "AAA", 1)
    assert rows.loc[rows["as_of"] == at(5), "actual"].isna().all()
    assert rows.loc[rows["as_of"] == at(4), "actual"].notna().all()


def test_the_last_minutes_of_a_day_do_not_meet_the_next_one() -> None:
    early = predictions(range(5))
    late = with_column(early, "as_of", [time.as_py() + pd.Timedelta(days=1) for time in early["as_of"]])
    rows = of_ticker(join_outcomes([pa.concat_tables([early, late]).select(list(COLUMNS))]), "AAA", 1)
    assert list(rows["actual"].isna()) == [False] * 4 + [True] + [False] * 4 + [True]


def test_no_move_is_neither_right_nor_wrong() -> None:
    still = with_column(predictions(range(8)), "last_price", [100.0] * 8 * len(PREDICTED) * len(HORIZONS))
    one, _ = accuracy(join_outcomes([still.select(list(COLUMNS))]))
    assert (one.direction, one.skill, one.mae_still_bp) == (None, None, 0.0)


def test_the_newest_window_of_each_ticker(frame: pd.DataFrame) -> None:
    assert (tickers(frame), horizons(frame)) == (list(PREDICTED), list(HORIZONS))
    newest = newest_of(frame, "BBB")
    assert list(newest["horizon_min"]) == list(HORIZONS)
    assert set(newest["as_of"]) == {at(MINUTES - 1)}
    moves = newest_moves(frame, 5)
    assert list(moves["ticker"]) == list(PREDICTED)
    wanted = [1e4 * predicted_return(ticker, MINUTES - 1, 5) for ticker in PREDICTED]
    assert list(moves["move_bp"]) == pytest.approx(wanted)


def test_without_predictions_everything_is_empty() -> None:
    empty = join_outcomes([])
    assert (tickers(empty), horizons(empty), accuracy(empty)) == ([], [], [])
    assert not len(rolling_errors(empty, 5))
    assert not len(newest_moves(empty, 5))


def test_the_chart_draws_a_prediction_where_it_is_about_in_new_york_time(frame: pd.DataFrame) -> None:
    high, low, actual, predicted = forecast_chart(of_ticker(frame, "AAA", 5), 5)["data"]
    assert (actual["x"][0], predicted["x"][0]) == ("2025-12-02 09:30", "2025-12-02 09:35")
    assert (actual["y"][0], actual["y"][5]) == (price("AAA", 0), price("AAA", 5))
    assert [high["y"][0] - low["y"][0], high["y"][0] - predicted["y"][0]] == pytest.approx([0.2, 0.1], abs=1e-3)
    assert low["fill"] == "tonexty"


def test_the_chart_of_errors_has_both_rivals(frame: pd.DataFrame) -> None:
    still, prediction = error_chart(rolling_errors(frame, 1))["data"]
    assert still["name"] == "the price stays"
    last = expected.rolling(1, MINUTES, 30)[MINUTES - 1]
    assert (prediction["y"][-1], still["y"][-1]) == pytest.approx(last, abs=1e-3)


def test_nights_are_left_out_of_a_chart_over_several_days() -> None:
    early = predictions(range(5))
    late = with_column(early, "as_of", [time.as_py() + pd.Timedelta(days=1) for time in early["as_of"]])
    frame = join_outcomes([table.select(list(COLUMNS)) for table in (early, late)])
    assert forecast_chart(of_ticker(frame, "AAA", 1), 1)["layout"]["xaxis"]["rangebreaks"]
    one = join_outcomes([early.select(list(COLUMNS))])
    assert "rangebreaks" not in forecast_chart(of_ticker(one, "AAA", 1), 1)["layout"]["xaxis"]

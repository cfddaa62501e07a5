"""The example of a backtest: its arithmetic, and that it calls chance chance."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app import consumer
from app.errors import StockflowError
from app.sessions import Session
from examples.backtest import COLUMNS, Periods, backtest, choose, coins, interval, main, report, verdict
from tests.fakes import FakeS3, bucket, make_sessions
from tests.predictions import predict, store

ROOT = Path(__file__).parents[2]
DAYS = make_sessions(*[390] * 6)
NAN = np.nan


def frame(*tables: tuple[Session, Any]) -> Any:
    """As a consumer reads them."""
    held = bucket()
    for session, table in tables:
        store(held, session, table)
    return consumer.predictions(DAYS[0].day, DAYS[-1].day, columns=COLUMNS, bucket=held)


def traded(prices: dict[str, list[float]], up: str, **asked: Any) -> Periods:
    """Two minutes ahead, where one ticker is always expected to rise and the others to fall."""
    told = {(name, 2): np.full(len(closes), 0.01 if name == up else -0.01) for name, closes in prices.items()}
    table = predict(DAYS[0], prices, horizons=(2,), returns=told)
    return backtest(frame((DAYS[0], table)), **{"horizon_min": 2, "cost_bp": 3.0, **asked})


def walks(seed: int, days: int, foresight: float, horizon: int = 5) -> Any:
    """Ten tickers whose moves `horizon` minutes ahead are foreseen to some part; the rest of the forecast is noise."""
    random, tables = np.random.default_rng(seed), []
    for session in DAYS[:days]:
        closes = {f"T{n}": 100 * np.exp(random.normal(0, 1e-3, 120).cumsum()) for n in range(10)}
        told: dict[tuple[str, int], npt.ArrayLike] = {}
        for name, values in closes.items():
            after = np.log(np.concatenate([values[horizon + 1 :], np.full(horizon + 1, values[-1])]) / values)
            told[name, horizon] = foresight * after + (1 - foresight) * random.normal(0, 2e-3, len(values))
        tables.append((session, predict(session, closes, horizons=(horizon,), returns=told)))
    return frame(*tables)


def test_positions_open_a_minute_after_the_bar_and_close_horizon_minutes_later() -> None:
    found = traded({"A": [10, 11, 12, 13, 14], "B": [20, 20, 20, 19, 20]}, up="A")
    # of A: 13 / 11 - 1 = 2/11; of B, sold: 1 - 19/20 = 1/20
    assert found.gross_bp == pytest.approx([1e4 * (2 / 11 + 1 / 20) / 2])
    assert found.at_forecast_bp == pytest.approx([1e4 * (12 / 10 - 1) / 2])
    assert found.net_bp == pytest.approx(found.gross_bp - 2 * 3.0)
    assert (found.positions, found.day.tolist()) == (2, [0])


def test_who_has_no_bar_in_the_next_minute_cannot_be_traded() -> None:
    found = traded({"A": [10, 11, 12, 13, 14], "B": [20, NAN, 20, 19, 20]}, up="A")
    assert found.gross_bp == pytest.approx([1e4 * 2 / 11])
    assert found.positions == 1


def test_who_has_no_bar_at_the_end_is_not_left_out_but_valued_at_its_last_price() -> None:
    found = traded({"A": [10, 11, 5, NAN, 14], "B": [20, 20, 20, 20, 20]}, up="A")
    assert found.gross_bp == pytest.approx([1e4 * (5 / 11 - 1) / 2])


def test_holding_periods_do_not_overlap_nor_reach_over_a_night() -> None:
    prices = {"A": np.arange(100, 111.0), "B": np.full(11, 50.0)}
    told = {("A", 2): np.full(11, 0.1), ("B", 2): np.full(11, 0.0)}
    table = [(day, predict(day, prices, horizons=(2,), returns=told)) for day in DAYS[:2]]
    found = backtest(frame(*table), horizon_min=2, cost_bp=0)
    entries = [101, 103, 105, 107]  # at 10 minutes more, no price is left to close at
    assert found.gross_bp.tolist() == pytest.approx([1e4 * (2 / price) / 2 for price in entries] * 2)
    assert found.day.tolist() == [0] * 4 + [1] * 4


def test_other_horizons_are_prices_alone() -> None:
    prices = {"A": [10.0, 11, 12, 13, 14], "B": [20.0, 20, 20, 20, 20]}
    told = {(name, h): np.full(5, sign * 0.01) for name, sign in (("A", 1), ("B", -1)) for h in (1, 2)}
    rows = frame((DAYS[0], predict(DAYS[0], prices, horizons=(1, 2), returns=told)))
    assert len(backtest(rows, horizon_min=1, cost_bp=0).gross_bp) == 3
    assert len(backtest(rows, horizon_min=2, cost_bp=0).gross_bp) == 1
    with pytest.raises(ValueError, match="no two tickers were predicted 7 min ahead"):
        backtest(rows, horizon_min=7, cost_bp=0)


@pytest.mark.parametrize(
    ("forecast", "share", "side"),
    [
        ([0.3, 0.1, 0.2], 0.2, [1, -1, 0]),
        ([0.3, NAN, 0.2], 0.2, [1, 0, -1]),
        ([4.0, 3.0, 2.0, 1.0], 0.5, [1, 1, -1, -1]),
        ([1.0, 2.0, 3.0], 0.9, [0, 0, 0]),
        ([1.0, NAN], 0.2, [0, 0]),
        ([NAN, NAN], 0.2, [0, 0]),
    ],
)
def test_the_highest_are_bought_and_the_lowest_sold(forecast: list[float], share: float, side: list[float]) -> None:
    assert choose(np.array(forecast), share).tolist() == side


def test_an_interval_is_of_days_where_there_are_enough() -> None:
    values, day = np.array([1.0, 3.0, 5.0, 7.0]), np.array([0, 0, 1, 1])
    error = np.std(values, ddof=1) / 2
    assert interval(values, day) == pytest.approx((4 - 1.96 * error, 4 + 1.96 * error))
    assert interval(values[:1], day[:1]) == (-np.inf, np.inf)
    alike = np.repeat(np.arange(10.0), 50)  # what is the same all day long is seen ten times, not five hundred
    low, high = interval(alike, np.repeat(np.arange(10), 50))
    by_day = np.std(np.arange(10.0)) / np.sqrt(10)
    assert (high - low) / 2 == pytest.approx(1.96 * by_day, rel=0.1)


def test_coins_earn_nothing_on_average_and_keep_the_positions_of_a_period_together() -> None:
    values = np.array([3.0, -1.0, 2.0, 4.0])
    drawn = coins(values)
    assert abs(drawn.mean()) < 0.2
    assert drawn.std() == pytest.approx(np.sqrt(np.square(values).sum()) / 4, rel=0.05)
    assert drawn.max() == pytest.approx(10 / 4)


def test_forecasts_of_nothing_are_called_chance() -> None:
    said = [verdict(backtest(walks(seed, 6, 0.0), horizon_min=5, cost_bp=1)) for seed in range(20)]
    assert sum(text.startswith("Nothing here is significant") for text in said) >= 17
    assert not any(text.startswith("After costs it earns") for text in said)


def test_what_costs_eat_is_not_called_a_profit() -> None:
    rows = walks(1, 6, 0.5)
    dear, cheap = (backtest(rows, horizon_min=5, cost_bp=cost) for cost in (50, 0.1))
    assert "but not better than not to trade: it would break even at" in verdict(dear)
    assert verdict(cheap).startswith("After costs it earns more than nothing in this sample")


def test_the_report_stands_beside_its_rivals_and_says_how_few_days_there_are() -> None:
    text = report(backtest(walks(1, 2, 0.5), horizon_min=5, cost_bp=2), horizon_min=5, cost_bp=2)
    for told in ("46 holding periods of 5 min on 2 days, 4.0 positions each", "not to trade", "a coin for each period"):
        assert told in text
    assert text.endswith("with 2 of 5 days they are too narrow.")
    assert "too narrow" not in report(backtest(walks(1, 6, 0.5), horizon_min=5, cost_bp=2), horizon_min=5, cost_bp=2)


def copy(s3: FakeS3, folder: Path) -> Path:
    for key, held in s3.objects.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(held.body)
    return folder


def test_it_trades_the_last_session_of_a_folder_at_the_longest_horizon(tmp_path: Path) -> None:
    s3, random = FakeS3(), np.random.default_rng(4)
    for session in DAYS[:2]:
        closes = {name: random.uniform(9, 10, 40) for name in "ABC"}
        store(bucket(s3), session, predict(session, closes, horizons=(1, 5)))
    place = str(copy(s3, tmp_path))
    assert main(["--bucket", place]).startswith("7 holding periods of 5 min on 1 day, 2.0 positions each")
    whole = main(["--bucket", place, "--start", str(DAYS[0].day), "--horizon", "1"])
    assert whole.startswith("76 holding periods of 1 min on 2 days")
    with pytest.raises(StockflowError, match="there are no predictions of that time: the last ones are of 2025-12-02"):
        main(["--bucket", place, "--start", "2026-01-01", "--end", "2026-01-02"])
    with pytest.raises(StockflowError, match="no two tickers were predicted 3 min ahead"):
        main(["--bucket", place, "--horizon", "3"])


def test_started_as_a_program_it_says_what_is_wrong_in_a_line(tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "examples" / "backtest.py"), "--bucket", f"{tmp_path}/"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "backtest: there are no predictions there yet: type `make run`\n"

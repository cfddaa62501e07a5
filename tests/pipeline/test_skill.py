"""What is there to be found, and how much of it a training finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import contract
from app.settings import DatasetSettings
from benchmarks.forecast import make_dataset, store_dataset, train
from embedded.market.simulated import SimulatedMarket, attainable_skills, simulate


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_most_of_what_the_simulated_market_gives_away_is_found_and_the_interval_holds(tmp_path: Path) -> None:
    simulated = SimulatedMarket(tickers=20, sessions=20)
    market = simulate(simulated)
    dataset = make_dataset(market, DatasetSettings(horizons_min=(5,), validation_days=3, test_days=4))
    store_dataset(dataset, tmp_path)
    training = {"features": contract.DEFAULT_FEATURES, "epochs": 4, "ranks": 2, "batch": 256, "seed": 7}
    found = train(tmp_path, training)["test"]["horizons"]["5"]
    days, window_min = dataset.days["test"], dataset.settings.window_min
    assert found["skill"] > 0.8 * attainable_skills(simulated, market, (5,), days, window_min)[5]
    assert found["coverage"] == pytest.approx(0.8, abs=0.03)

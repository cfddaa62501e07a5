"""A model's card tells people what it is, how good it is, and what is not to be believed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.training.card import model_card
from app.training.evaluate import evaluate

SPEC = {
    "window_min": 60,
    "horizons_min": [5, 10],
    "features": ["log_return", "log_volume"],
    "scales": {"A": {}, "B": {}},
    "fingerprint": "0123456789abcdef0123",
}
SETTINGS = {"training": {"lstm_units": 50, "dropout": 0.2, "dense_units": 32, "epochs": 4, "resolution_min": 1}}
DAYS = {
    "train": ["2026-03-12", "2026-03-13", "2026-03-16"],
    "validation": ["2026-03-17"],
    "test": [f"2026-03-{day}" for day in range(18, 28)],
}


def horizon(**changes: Any) -> dict[str, Any]:
    """Metrics of a horizon with a small skill that is real."""
    return {
        **{"windows": 7779, "mae_usd": 0.0738, "mae_persistence_usd": 0.0773, "rmse_usd": 0.11},
        **{"rmse_persistence_usd": 0.12, "mae_bp": 7.31, "mae_persistence_bp": 7.64, "rmse_bp": 10.5},
        **{"rmse_persistence_bp": 11.0, "skill": 0.086, "skill_interval": [0.07, 0.1], "significant": True},
        **{"over_linear": 0.01, "over_linear_interval": [-0.005, 0.02], "over_linear_significant": False},
        **{"direction": 0.59, "direction_interval": [0.57, 0.61], "direction_significant": True},
        **{"rank_ic": 0.21, "rank_ic_interval": [0.15, 0.27], "rank_ic_significant": True, "rank_ic_minutes": 3000},
        **{"coverage": 0.792, "width_bp": 26.04, "below": {"p10": 0.105, "p50": 0.497, "p90": 0.897}},
        **changes,
    }


def card(*, days: int = 10, **changes: Any) -> str:
    """The card of a model with two horizons, the first of which has these changes."""
    none = dict.fromkeys(("coverage", "width_bp", "below"))
    test = {"windows": 7779, "days": days, "skill": 0.08, "horizons": {"5": horizon(**changes), "10": horizon()}}
    metrics = {
        **{"validation": {"windows": 5000}, "test": test, "windows_train": 40443},
        **{"ranks": 2, "batch": 256, "best_epoch": 3},
        "linear": {"test": {"horizons": {"5": horizon(mae_usd=0.075, **none), "10": horizon(**none)}}},
    }
    return model_card("r-12345678", SPEC, SETTINGS, metrics, {**DAYS, "test": DAYS["test"][:days]})


def row(text: str, start: str) -> list[str]:
    """Cells of the first row that starts so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_it_tells_what_the_model_is_and_what_it_was_trained_on() -> None:
    text = card()
    assert text.startswith("# Model r-12345678\n")
    assert row(text, "features of a minute")[1] == "`log_return`, `log_volume`"
    assert row(text, "looks ahead")[1] == "5 and 10 minutes"
    assert row(text, "network")[1].startswith("LSTM 50, dropout 0.2, dense 32 (ReLU)")
    assert row(text, "train")[1:] == ["3: 2026-03-12 to 2026-03-16", "40,443"]
    assert row(text, "validation")[1:] == ["1: 2026-03-17", "5,000"]
    assert row(text, "test")[1:] == ["10: 2026-03-18 to 2026-03-27", "7,779"]
    assert "2 tickers; 2 ranks with batches of 256; epoch 3 of 4" in text


def test_skills_stand_beside_their_intervals() -> None:
    assert row(card(), "5") == [
        "5",
        "+0.0860 [+0.0700, +0.1000]",
        "+0.0100 [-0.0050, +0.0200], not significant",
        "59.0 % [57.0, 61.0]",
        "+0.2100 [+0.1500, +0.2700]",
    ]


def test_errors_stand_beside_those_of_persistence_and_of_the_linear_model() -> None:
    text = card()
    assert row(text.partition("Errors of the model")[2], "5")[1] == "0.0738 / 0.0773 / 0.0750"
    assert row(text.partition("Errors of the model")[2], "10")[4] == "10.50 / 11.00 / 10.50"


def test_intervals_are_told_by_what_they_held() -> None:
    assert row(card().partition("interval from p10")[2], "5")[1:] == ["79.2 %", "26.04", "10.5 %, 49.7 %, 89.7 %"]


def test_what_is_not_significant_is_called_so_first_of_all() -> None:
    text = card(skill=0.004, skill_interval=[-0.01, 0.02], significant=False)
    opening = text.split("\n\n")[1]
    assert "5 minutes ahead no significant difference (+0.0040, not significant)" in opening
    assert "10 minutes ahead better (+0.0860)" in opening
    assert row(text, "5")[1] == "+0.0040 [-0.0100, +0.0200], not significant"


def test_a_model_that_is_worse_is_called_worse() -> None:
    text = card(skill=-0.015, skill_interval=[-0.02, -0.01], significant=True)
    assert "5 minutes ahead worse (-0.0150)" in text


def test_one_day_is_called_no_evidence() -> None:
    names = ("skill", "over_linear", "direction", "rank_ic")
    unknown: dict[str, Any] = {f"{name}_{what}": None for name in names for what in ("interval", "significant")}
    text = card(days=1, significant=None, **unknown)
    assert "**One day gives no interval: nothing below is significant.**" in text
    assert row(text, "5")[1] == "+0.0860, not significant"


@pytest.mark.parametrize(("days", "few"), [(2, True), (5, True), (6, False)])
def test_few_days_are_called_few(days: int, few: bool) -> None:
    assert (f"**{days} days are few:**" in card(days=days)) is few


def test_what_cannot_be_told_is_a_dash() -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        ("rank_ic", "rank_ic_interval", "rank_ic_significant", "coverage", "width_bp", "below")
    )
    text = card(**nothing)
    assert row(text, "5")[4] == "-"
    assert row(text.partition("interval from p10")[2], "5")[1:] == ["-", "-", "-"]
    assert "None" not in text


def test_it_says_what_it_is_not_for() -> None:
    below = card().partition("## What it is not for")[2]
    assert "no advice to trade" in below
    assert "No cost is counted" in below


@pytest.mark.parametrize("days", [1, 3])
def test_it_reads_metrics_as_they_are_measured(days: int) -> None:
    random, windows = np.random.default_rng(1), 60 * days
    future = 100 * np.exp(random.normal(0, 1e-3, (windows, 2)))
    linear = random.normal(0, 1e-4, (windows, 2))
    at = 1_773_930_000 + 86_400 * np.repeat(np.arange(days), 60) + 60 * np.tile(np.arange(60) // 6, days)

    def measured(forecast: Any) -> dict[str, Any]:
        last, horizons_min = np.full(windows, 100.0), (5, 10)
        return evaluate(
            forecast, last_price=last, future_price=future, as_of=at, horizons_min=horizons_min, seed=7, linear=linear
        ).to_json()

    quantiles = linear[..., None] + 1e-3 * np.array([0.1, -1.3, 0.0, 1.3])
    test = measured(quantiles)
    metrics = {
        **{"validation": test, "test": test, "linear": {"test": measured(linear[..., None])}},
        **{"windows_train": 100, "ranks": 1, "batch": 8, "best_epoch": 1},
    }
    text = model_card("m", SPEC, SETTINGS, metrics, {**DAYS, "test": DAYS["test"][:days]})
    assert row(text, "10")[1].startswith(f"{test['horizons']['10']['skill']:+.4f}")
    assert row(text, "5")[4] != "-"
    assert ("nothing below is significant" in text) is (days == 1)


def test_the_same_model_has_the_same_card() -> None:
    assert card() == card()
    assert card().endswith("\n")
    assert not any(line != line.rstrip() for line in card().splitlines())

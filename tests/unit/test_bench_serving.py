"""The serving benchmark's arithmetic: from what was timed to what is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.errors import SettingsError
from app.scaling.plots import draw_serving
from benchmarks.serving import read_serving_options
from benchmarks.serving_figures import serving_goals, serving_lines, serving_row
from benchmarks.serving_market import minute_bars, names, sessions


def row(tickers: int, micro_batch_s: float, original: list[float]) -> dict[str, Any]:
    timed = [
        {"micro_batch_s": micro_batch_s * times, "scoring_s": 0.01, "end_to_end_s": 2 * micro_batch_s * times}
        for times in (0.5, 1, 1, 1, 3)
    ]
    return serving_row(tickers, timed, original, 1800.0)


def test_a_row_holds_medians_and_the_slowest_percent() -> None:
    found = row(500, 0.4, [10.0, 20.0, 12.0])
    assert found["micro_batch_s"] == 0.4
    assert found["micro_batch_p99_s"] == pytest.approx(1.168)
    assert (found["end_to_end_p50_s"], found["original_s"], found["us_per_ticker"]) == (0.8, 12.0, 800.0)
    assert row(2000, 0.4, [])["original_s"] is None


def test_bars_are_met_or_missed_where_they_were_measured() -> None:
    rows = [row(4, 0.35, [0.2]), row(500, 0.4, [15.0]), row(10_000, 1.4, [])]
    verdicts = {(goal.name, goal.asked_at): goal.met for goal in serving_goals(rows)}
    assert verdicts == {
        ("micro-batch, s", "500 tickers, median"): True,
        ("original's way over ours", "500 tickers"): True,
        ("end to end, s", "500 tickers, p99"): False,
        ("micro-batch, s", "10,000 tickers, median"): False,
        ("cost of a ticker over that of the row before", "every row"): True,
    }
    assert {goal.met for goal in serving_goals(rows[:1])} == {None}


def test_the_table_names_the_bars_and_the_pictures_are_two(tmp_path: Path) -> None:
    rows = [row(4, 0.35, [0.2]), row(10_000, 1.4, [])]
    figures = {"machine": {"cores": 2}, "rows": rows, "first_prediction_s": 9.0}
    lines = list(serving_lines(figures, serving_goals(rows)))
    assert any(line.split()[:2] == ["10,000", "1.400"] for line in lines)
    assert {path.name for path in draw_serving(rows, tmp_path)} == {
        f"serving_{name}.{suffix}" for name in ("update", "ticker") for suffix in ("png", "svg")
    }


def test_a_minute_s_bars_are_the_same_whoever_makes_them_and_others_in_the_next() -> None:
    _, day = sessions()
    assert minute_bars(names(5), day, [3]).equals(minute_bars(names(5), day, [3]))
    assert not minute_bars(names(5), day, [3]).equals(minute_bars(names(5), day, [4]))


def test_numbers_of_tickers_that_are_none_are_refused() -> None:
    with pytest.raises(SettingsError, match="--tickers 'many' are not whole numbers by commas"):
        read_serving_options(["--tickers", "many"])


@pytest.mark.parametrize("batches", ["0", "381"])
def test_a_row_has_at_least_a_micro_batch_and_no_more_than_a_session_s(batches: str) -> None:
    with pytest.raises(SettingsError, match="--batches must be from 1 to 380"):
        read_serving_options(["--batches", batches])

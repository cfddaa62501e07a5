"""The pure parts of the ingest benchmark: its figures, its bars, its text, and the original's generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app.errors import SettingsError
from benchmarks.figures import (
    Measured,
    arm_figures,
    fault_figures,
    floor_s,
    rate_figures,
    ratio,
    scaling_figures,
    spread,
)
from benchmarks.job import Job, Outcome, Run, digest
from benchmarks.options import ARMS, Options, read_options
from benchmarks.original import make_sequences
from benchmarks.plots import draw_arms, draw_scaling
from benchmarks.table import report_lines
from benchmarks.verdict import Goal, goals, wrong_results
from embedded.yahoo.server import Stats

OPTIONS = Options(tickers=100, days=5, latency_ms=150, in_flight=50, rounds=3)
BARS = Outcome(rows=10, digests={"SIM001": "1", "SIM002": "2"})


def measured(
    wall_s: float = 1.0,
    outcome: Outcome = BARS,
    *,
    begun_s: float = 100.0,
    cpu_s: float = 0.5,
    charts: int = 100,
    statuses: Mapping[str, int] | None = None,
    faults: Mapping[str, int] | None = None,
    first_chart_s: float = 100.2,
    last_chart_s: float = 100.9,
    rendered: int = 0,
) -> Measured:
    run = Run(outcome, 0.4, begun_s, begun_s + wall_s, cpu_s, 150.0)
    stats = Stats(
        requests={"chart": charts, "cookie": 1},
        statuses=dict(statuses or {"200": charts}),
        faults=dict(faults or {}),
        in_flight=0,
        peak_in_flight=50,
        rendered=rendered,
        first_chart_s=first_chart_s,
        last_chart_s=last_chart_s,
    )
    return Measured(run, stats, 0.1)


def parsing(parse_ms: float) -> Measured:
    return measured(outcome=Outcome(counts={"parse_ms": parse_ms}))


def downloaded(wall_s: float, download_s: float) -> Measured:
    outcome = replace(BARS, parts_s={"download": download_s}, counts={"sequences": 7})
    return measured(wall_s, outcome)


def rounds(**arms: list[Measured]) -> dict[str, list[Measured]]:
    return {"parsing": [parsing(1.0)] * 3, **arms}


def figures_of(by_arm: Mapping[str, list[Measured]], **others: Any) -> dict[str, Any]:
    return {
        "settings": OPTIONS.to_json(),
        "machine": {"cores": 2},
        **arm_figures(by_arm, OPTIONS, 100),
        **{"scaling": None, "rate": None, "faults": None, **others},
    }


# --- figures --------------------------------------------------------------------------------------


def test_a_spread_keeps_its_rounds_in_order() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "rounds": [3.0, 1.0, 2.0]}
    assert spread([]) is None


def test_a_ratio_is_of_medians_and_unknown_when_either_is() -> None:
    assert ratio(spread([10, 30, 20]), spread([4, 5, 900])) == 4
    assert ratio(None, spread([1])) is None
    assert ratio(spread([1]), None) is None


def test_the_floor_is_waiting_side_by_side_and_parsing_one_by_one() -> None:
    assert floor_s(100, latency_ms=150, in_flight=50, parse_ms=1.0) == pytest.approx(0.3 + 0.1)
    assert floor_s(2500, latency_ms=150, in_flight=64, parse_ms=0.9) == pytest.approx(2500 * 0.15 / 64 + 2.25)
    assert floor_s(10, latency_ms=150, in_flight=64, parse_ms=1.0) == pytest.approx(0.15 + 0.01)


def test_speed_ups_are_of_medians_with_and_without_the_generator() -> None:
    figures = arm_figures(
        rounds(
            naive=[downloaded(80, 40), downloaded(100, 50), downloaded(120, 60)],
            original=[downloaded(30, 25), downloaded(31, 20), downloaded(90, 21)],
            ours=[measured(0.5), measured(0.4), measured(0.6)],
        ),
        OPTIONS,
        100,
    )
    assert figures["speedup_over_naive"] == 200
    assert figures["speedup_over_naive_download"] == 100
    assert figures["speedup_over_original"] == 62
    assert figures["speedup_over_original_download"] == 42
    assert figures["floor_s"]["median"] == 0.4
    assert figures["ratio_to_floor"] == 1.25
    assert figures["cpu_ms_per_response"]["median"] == 5
    assert figures["cost_per_ticker_ms"]["median"] == 5
    assert (figures["peak_in_flight"], figures["peak_rss_mib"], figures["import_s"]["median"]) == (50, 150, 0.4)
    assert figures["naive_s"]["rounds"] == [80, 100, 120]


def test_figures_of_skipped_arms_are_null() -> None:
    figures = arm_figures(rounds(ours=[measured(0.5)]), OPTIONS, 100)
    for name in ("naive_s", "original_s", "naive_download_s", "ours_stored_s", "yfinance_client_s", "sequences"):
        assert figures[name] is None
    assert figures["speedup_over_naive"] is figures["speedup_over_original_download"] is None
    assert figures["ours_s"]["median"] == 0.5
    without = arm_figures(rounds(naive=[downloaded(80, 40)]), OPTIONS, 100)
    assert without["ours_s"] is without["ratio_to_floor"] is without["peak_rss_mib"] is None
    assert without["floor_s"]["median"] == 0.4


def test_charts_that_were_rendered_while_an_arm_was_timed_are_told() -> None:
    figures = arm_figures(rounds(ours=[measured(rendered=3), measured(rendered=1)]), OPTIONS, 100)
    assert figures["rendered"] == 4


def test_scaling_takes_the_fetching_apart_from_start_up_and_storing() -> None:
    one = measured(10.0, begun_s=100.0, first_chart_s=101.15, last_chart_s=109.0)
    two = measured(6.0, begun_s=200.0, first_chart_s=201.65, last_chart_s=205.5)
    found = scaling_figures({2: [two], 1: [one]}, latency_ms=150)
    assert list(found) == ["1", "2"]
    assert (found["1"]["start_s"]["median"], found["1"]["fetch_s"]["median"]) == (1.0, 8.0)
    assert found["1"]["store_s"]["median"] == 1.0
    assert (found["2"]["start_s"]["median"], found["2"]["fetch_s"]["median"]) == (1.5, 4.0)
    assert (found["2"]["speedup"], found["2"]["efficiency"]) == (2.0, 1.0)
    assert found["2"]["wall_s"]["median"] == 6.0


def test_a_sustained_rate_is_of_answers_between_the_first_and_the_last_one() -> None:
    outcome = replace(BARS, counts={"rate_limited": 7})
    one = measured(
        outcome=outcome, statuses={"200": 500, "429": 7}, charts=507, first_chart_s=100.0, last_chart_s=110.0
    )
    found = rate_figures(one, 50)
    assert (found["sustained_per_s"], found["sustained_share"], found["share_with_burst"]) == (50, 0.9, 1.0)
    assert (found["answers_429"], found["rate_limited"], found["tickers_lost"]) == (7, 7, 0)


def test_a_rate_is_not_told_from_a_burst() -> None:
    one = measured(outcome=replace(BARS, counts={"rate_limited": 0}), statuses={"200": 20})
    assert rate_figures(one, 50)["sustained_share"] is None


# --- bars -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "at_least", "met", "verdict"),
    [
        (150.0, True, True, "met"),
        (120.0, True, False, "MISSED by 30 (20%)"),
        (150.0, False, True, "met"),
        (165.0, False, False, "MISSED by 15 (10%)"),
        (None, True, None, "not measured"),
    ],
)
def test_a_bar_says_by_how_much_it_is_missed(
    value: float | None, at_least: bool, met: bool | None, verdict: str
) -> None:
    goal = Goal("a bar", value, 150, at_least, "any size")
    assert (goal.met, goal.verdict) == (met, verdict)
    assert goal.to_json()["at_least" if at_least else "at_most"] == 150


def test_the_bars_are_those_that_the_ingest_is_held_to() -> None:
    by_arm = rounds(
        naive=[downloaded(100, 50)], original=[downloaded(31, 20)], ours=[measured(0.5)], ours_100=[measured(0.4)]
    )
    rate = {"arms": {"told": {"sustained_share": 0.96}, "not told": {"sustained_share": 0.9}}}
    found = {goal.name: (goal.value, goal.limit, goal.met) for goal in goals(figures_of(by_arm, rate=rate))}
    assert found == {
        "speed-up over naive": (200, 150, True),
        "speed-up over the original's way": (62, 60, True),
        "ratio to the floor": (1.25, 1.4, True),
        "peak memory, MiB": (150, 600, True),
        "cost per ticker over that at 100 tickers": (1.25, 1.0, False),
        "share of the enforced rate, told": (0.96, 0.95, True),
        "share of the enforced rate, not told": (0.9, 0.95, False),
    }


# --- what must not happen -------------------------------------------------------------------------


def test_equal_bars_of_all_or_of_some_tickers_are_right() -> None:
    named = [
        ("naive", measured()),
        ("ours", measured()),
        ("ours_100", measured(outcome=Outcome(rows=4, digests={"SIM002": "2"}))),
        ("original", measured(outcome=Outcome(rows=9, lost=("SIM003",)))),
        ("parsing", parsing(1.0)),
    ]
    assert wrong_results(BARS, named, None) == []


def test_other_bars_and_lost_tickers_are_wrong() -> None:
    named = [
        ("ours", measured(outcome=replace(BARS, digests={"SIM001": "1", "SIM002": "other"}))),
        ("ours_stored", measured(outcome=replace(BARS, lost=("SIM001", "SIM004")))),
    ]
    assert wrong_results(BARS, named, None) == [
        "ours_stored lost SIM001, SIM004",
        "ours has other bars than our first run of SIM002",
    ]


def _faulty(faults: Mapping[str, int], charts: int, **counts: int) -> dict[str, Any]:
    one = measured(outcome=replace(BARS, counts=counts), charts=charts, faults=faults)
    return fault_figures(one, 0.05, 100, BARS)


def test_each_failure_takes_a_retry_and_each_short_answer_a_second_look() -> None:
    found = _faulty({"429": 2, "hang": 1, "short": 1}, 106, requests=106, retries=3, verified=3)
    assert (found["must_be_retried"], found["must_be_verified"], found["same_bars"]) == (3, 1, True)
    assert wrong_results(BARS, [], found) == []


def test_curl_may_repeat_a_dropped_request_by_itself() -> None:
    found = _faulty({"500": 2, "drop": 1}, 103, requests=102, retries=2, verified=0)
    assert found["repeated_by_curl"] == 1
    assert wrong_results(BARS, [], found) == []
    without_drop = _faulty({"500": 3}, 103, requests=102, retries=2, verified=0)
    assert wrong_results(BARS, [], without_drop) == [
        "3 answers failed, but 2 retries were counted and 1 requests by nobody"
    ]


def test_retries_that_are_not_counted_are_wrong() -> None:
    assert wrong_results(BARS, [], _faulty({"500": 3}, 103, requests=103, retries=2, verified=1)) == [
        "3 answers failed, but 2 retries were counted and 0 requests by nobody"
    ]
    assert wrong_results(BARS, [], _faulty({"short": 2}, 101, requests=101, retries=0, verified=1)) == [
        "2 answers were short, but only 1 were asked for again"
    ]
    assert wrong_results(BARS, [], _faulty({}, 103, requests=103, retries=0, verified=1)) == [
        "103 requests were counted, 101 of them for a reason"
    ]


# --- jobs and runs --------------------------------------------------------------------------------


def test_jobs_and_runs_survive_their_files() -> None:
    job = Job(
        "ours", "http://x", "2025-10-31T22:00:00+00:00", ("A", "B"), (("2025-10-31", 1, 390),),
        (("2025-10-31", "2025-11-01"),), {"in_flight": 8}, "bucket",
    )  # fmt: skip
    assert Job.from_json(job.to_json()) == job
    run = measured(outcome=Outcome(3, {"A": "d"}, ("B",), {"download": 1.5}, {"retries": 2})).run
    assert Run.from_json(run.to_json()) == run
    assert run.wall_s == 1.0


def test_a_digest_tells_any_two_sets_of_bars_apart() -> None:
    assert digest([b"12", b"34"]) == digest(iter([b"12", b"34"])) != digest([b"12", b"35"])


# --- the original's generator ---------------------------------------------------------------------


def test_the_originals_sequences_are_those_of_a_plain_double_loop() -> None:
    days = [pd.date_range(f"2025-10-{day} 09:30", periods=minutes, freq="min") for day, minutes in ((30, 70), (31, 67))]
    index = days[0].append(days[1])
    close, volume = np.arange(137.0), np.arange(137) * 10
    windows, targets = make_sequences(pd.DataFrame({"Close": close, "Volume": volume}, index=index))
    expected = [(start, first) for start, minutes in ((0, 70), (70, 67)) for first in range(minutes - 65)]
    assert windows.shape == (7, 60, 2)
    for window, target, (start, first) in zip(windows, targets, expected, strict=True):
        for minute in range(60):
            assert window[minute].tolist() == [close[start + first + minute], volume[start + first + minute]]
        assert target == close[start + first + 65]


def test_a_day_that_is_too_short_has_no_sequence() -> None:
    index = pd.date_range("2025-10-31 09:30", periods=65, freq="min")
    windows, targets = make_sequences(pd.DataFrame({"Close": np.ones(65), "Volume": np.ones(65)}, index=index))
    assert (windows.shape, targets.shape) == ((0, 60, 2), (0,))


# --- options, text, pictures ----------------------------------------------------------------------


def test_the_command_line_says_what_is_measured() -> None:
    assert read_options([]) == Options()
    found = read_options(
        ["--tickers", "500", "--days", "22", "--rate", "0", "--arms", "ours, naive", "--workers", "", "--faults", "0.1"]
    )
    assert found == Options(tickers=500, days=22, rate_per_s=0, arms=("ours", "naive"), workers=(), fault_share=0.1)
    assert read_options(["--workers", "4,1 2"]).workers == (1, 2, 4)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--tickers", "0"],
        ["--days", "23"],
        ["--rounds", "0"],
        ["--latency-ms", "-1"],
        ["--faults", "1"],
        ["--arms", "theirs"],
        ["--workers", "two"],
        ["--workers", "0"],
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SettingsError):
        read_options(wrong)


def _all_figures() -> dict[str, Any]:
    faulty = measured(outcome=replace(BARS, counts={"requests": 101, "retries": 1, "verified": 0}), charts=101,
                      faults={"500": 1})  # fmt: skip
    rated = measured(outcome=replace(BARS, counts={"rate_limited": 0}), statuses={"200": 500})
    workers = {1: [measured(10.0, last_chart_s=109.0)], 2: [measured(5.0, last_chart_s=104.0)]}
    own = [measured(0.5), measured(0.6), measured(0.4)]
    return figures_of(
        rounds(naive=[downloaded(100, 50)], original=[downloaded(31, 20)], ours=own, ours_stored=own,
               yfinance_client=own, ours_100=own),
        scaling={"requests": 100, "in_flight": 2, "workers": scaling_figures(workers, 150)},
        rate={"rate_per_s": 50.0, "requests": 500, "arms": {"told": rate_figures(rated, 50)}},
        faults=fault_figures(faulty, 0.05, 100, BARS),
    )  # fmt: skip


def test_the_report_puts_the_originals_table_beside_ours_and_judges_the_bars() -> None:
    figures = _all_figures()
    lines = list(report_lines(figures, goals(figures), ["ours lost SIM001"]))
    text = "\n".join(lines)
    assert any(line.split()[-5:] == ["2153.9", "2238.4", "1114.9", "567.4", "313.9"] for line in lines)
    assert next(line for line in lines if "speed-up over naive" in line).split()[3:7] == ["200", "at", "least", "150"]
    assert "the same bars, bit for bit; 101 requests for 100 answers\n  1 failed: 1 retries counted, 0 made" in text
    assert lines[-1] == "WRONG: ours lost SIM001"


def test_the_report_of_few_arms_says_what_was_skipped() -> None:
    figures = figures_of(rounds(naive=[downloaded(100, 50)]))
    lines = list(report_lines(figures, goals(figures), []))
    assert sum("skipped" in line for line in lines) == 5
    assert all("not measured" in line for line in lines[-5:])


def test_pictures_are_drawn_of_what_was_measured(tmp_path: Path) -> None:
    figures = _all_figures()
    files = [*draw_arms(figures, tmp_path), *draw_scaling(figures, tmp_path)]
    assert {file.name for file in files} == {
        "ingest_arms.png", "ingest_arms.svg", "ingest_scaling.png", "ingest_scaling.svg"
    }  # fmt: skip
    assert all(file.stat().st_size > 1000 for file in files)
    draw_arms(figures_of(rounds(naive=[downloaded(100, 50)])), tmp_path)


def test_all_arms_are_timed_unless_told_otherwise() -> None:
    assert Options().arms == ARMS

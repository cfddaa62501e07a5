"""The pure parts of the training benchmark: its data, its figures, its bars, its text, and how its processes meet."""

from __future__ import annotations

import sys
import threading
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.dataset.windows import session_starts
from app.errors import SettingsError
from app.scaling.cases import efficiency, speedup
from app.scaling.original import training_rows
from app.scaling.plots import draw
from benchmarks import torch_environment
from benchmarks.training_arms import Sample, gather
from benchmarks.training_data import make_data
from benchmarks.training_figures import scaling_rows, sequence_flops, training_figures, training_goals, unsound
from benchmarks.training_job import TrainingJob, TrainingRun, Watch, meet, read_runs
from benchmarks.training_options import ARMS, TrainingOptions, read_training_options
from benchmarks.training_table import training_lines

OPTIONS = TrainingOptions(batches=(256,), rounds=3)


def sample(rate: float, **more: Any) -> Sample:
    whole = Sample(rate, 2.0, 1.5, int(2 * rate), 4.0, 3.0, 0.9, 500.0, 0.0, {"tensorflow": "2.21"})
    return replace(whole, **more)


def run(sequences: int, wall_s: float, **more: Any) -> TrainingRun:
    return replace(TrainingRun(sequences, wall_s, wall_s, loss=1.0), **more)


def rounds() -> dict[tuple[str, int], list[Sample]]:
    rates = {
        ("ours_1_rank", 256): [20_000, 21_000, 22_000],
        ("ours_pair", 256): [40_000, 42_000, 44_000],
        ("ours_2_ranks", 256): [38_000, 41_000, 41_800],
        ("ours_2_ranks", 128): [32_000, 33_600, 33_000],
        ("keras_fit", 256): [10_000, 10_000, 10_000],
    }
    return {key: [sample(rate) for rate in found] for key, found in rates.items()}


# --- data -----------------------------------------------------------------------------------------


def test_the_data_are_windows_of_whole_sessions_and_the_same_for_a_seed() -> None:
    data = make_data(700, seed=3)
    by_session = session_starts(np.ones(390, bool), 60, 5, 0.0)
    assert data.starts.tolist() == [*by_session, *(390 + by_session), *(780 + by_session)][:700]
    assert data.materialised().shape == (700, 60, 2)
    assert np.array_equal(data.materialised()[699], data.rows[data.starts[699] : data.starts[699] + 60])
    assert np.array_equal(make_data(700, seed=3).targets, data.targets)
    assert not np.array_equal(make_data(700, seed=4).targets, data.targets)


# --- processes ------------------------------------------------------------------------------------


def job(folder: Path, number: int = 0, parties: int = 1) -> TrainingJob:
    return TrainingJob("a", 10, 1, 1, parties, number, 100, 45, 7, str(folder), time.monotonic())


def test_a_job_survives_the_way_to_its_process(tmp_path: Path) -> None:
    sent = job(tmp_path)
    assert TrainingJob.read(str(sent.write())) == sent
    assert sent.steps == 4
    assert sent.of_rank(1).number == 1


def test_parties_go_on_when_all_have_come(tmp_path: Path) -> None:
    through: list[int] = []

    def come(number: int) -> None:
        meet(tmp_path, number, 2)
        through.append(number)

    first = threading.Thread(target=come, args=(0,))
    first.start()
    time.sleep(0.05)
    assert not through
    come(1)
    first.join(10)
    assert sorted(through) == [0, 1]


def test_a_watch_writes_the_timed_steps_alone(tmp_path: Path) -> None:
    watch = Watch(job(tmp_path))
    watch.ready()
    watch.compiled()
    watch.begin()
    watch.end()
    watch.write(0.5, {"x": "1"})
    (found,) = read_runs(tmp_path)
    assert (found.sequences, found.loss, found.versions) == (40, 0.5, {"x": "1"})
    assert 0 <= found.wall_s < found.startup_s + 1
    assert found.peak_rss_mib > 1


def test_ranks_are_as_fast_as_the_slowest_and_trainings_of_their_own_add_up() -> None:
    runs = [run(100, 1.0), run(100, 2.0)]
    assert gather(ARMS["ours_2_ranks"], runs).sequences_per_s == 100
    assert gather(ARMS["ours_pair"], runs).sequences_per_s == 150
    assert gather(ARMS["ours_pair"], runs).cpu_s == 3.0


def test_ranks_that_drifted_apart_or_a_loss_that_is_none_are_told() -> None:
    drifted = gather(ARMS["ours_2_ranks"], [run(1, 1.0), run(1, 1.0, weight_diff=1e-9)])
    lost = gather(ARMS["torch"], [run(1, 1.0, loss=float("nan"))])
    assert len(unsound({("ours_2_ranks", 256): [drifted], ("torch", 256): [lost]})) == 2
    assert not unsound(rounds())


# --- figures --------------------------------------------------------------------------------------


def test_operations_of_a_sequence_are_three_times_those_of_its_matrices() -> None:
    forward = 60 * (2 * 4 * 50 * 2 + 2 * 4 * 50 * 50) + 2 * 50 * 32 + 2 * 32
    assert sequence_flops() == 3 * forward


def test_efficiencies_are_medians_of_ratios_within_a_round() -> None:
    figures = training_figures(rounds(), [], OPTIONS)
    assert figures["weak_efficiency"] == {"256": 0.95}  # of 0.95, 0.976 and 0.95
    assert figures["strong_efficiency"] == {"256": 0.8}  # of 0.8, 0.8 and 0.75
    assert figures["weak_scaling"][0]["independent"] == 42_000
    assert figures["strong_scaling"][0]["batch_a_rank"] == 128


def test_the_best_batch_of_each_arm_counts_and_what_did_not_run_is_unknown() -> None:
    found = rounds() | {("ours_1_rank", 1024): [sample(25_000)] * 3}
    figures = training_figures(found, [sample(0.0, gflops=100.0)], OPTIONS)
    assert figures["sequences_per_s"]["ours_1_rank"] == 25_000
    assert figures["best_batch"]["ours_1_rank"] == 1024
    assert figures["sequences_per_s"]["torch"] is None
    assert figures["sgemm_share"] == pytest.approx(25_000 * sequence_flops() / 1e11)
    assert set(figures["rows"][0]) >= {"sequences_per_s", "cpu_s", "wall_s", "startup_s", "compile_s"}


def test_the_bars_are_those_of_the_original_s_model() -> None:
    by_name = {(goal.name, goal.asked_at): goal for goal in training_goals(training_figures(rounds(), [], OPTIONS))}
    two = by_name["sequences/s of 2 ranks", "2 CPU cores, best batch"]
    assert (two.value, two.limit, two.met) == (41_000, 40_400, True)
    keras = by_name["1 rank over keras.fit, 1 thread each", "best batch of each"]
    assert (keras.value, keras.met) == (2.1, True)
    assert by_name["1 rank over PyTorch, 1 thread each", "best batch of each"].met is None
    weak = by_name["weak efficiency, 1 to 2 ranks", "batch 256 a rank"]
    assert (weak.value, weak.met) == (0.95, True)


def test_our_arms_are_cases_of_the_same_sweep_as_the_original_s() -> None:
    ours, original = scaling_rows(rounds()), training_rows()
    assert [(one.case.ranks, one.case.batch) for one in ours] == [(1, 256), (2, 256), (2, 128)]
    assert speedup(ours[1], ours) == pytest.approx(41_000 / 21_000)
    assert ours[1].times is not None
    assert ours[1].times.s_per_step == pytest.approx(512 / 41_000)
    four = next(one for one in original if one.case.nodes == 4)
    assert efficiency(four, original) == pytest.approx(0.51, abs=0.005)
    fastest = max(one.times.sequences_per_s for one in original if one.times)
    assert fastest == pytest.approx(40_400, rel=0.001)


def test_the_text_tells_what_was_skipped_and_the_pictures_are_there(tmp_path: Path) -> None:
    found = training_figures(rounds(), [sample(0.0, gflops=100.0)], OPTIONS)
    figures = {
        **found,
        "settings": OPTIONS.to_json(),
        "machine": {"cores": 2, "load": 0.1},
        "skipped": {"torch": "torch is not installed"},
        "wrong": ["something"],
    }
    ours = scaling_rows(rounds())
    text = "\n".join(training_lines(figures, ours, training_goals(found)))
    for said in ("149.2", "torch: skipped: torch is not installed", "0.950 (0.950 to 0.976)", "WRONG: something"):
        assert said in text
    assert "1 rank with 1 thread over keras.fit with 1: 2.10x" in text
    files = draw(ours, tmp_path, "training", "title", training_rows(), "2021")
    assert {file.name for file in files} == {
        f"training_{what}.{kind}" for what in ("speedup", "s_per_step", "s_per_epoch") for kind in ("png", "svg")
    }
    assert all(file.stat().st_size for file in files)


# --- options and torch ----------------------------------------------------------------------------


def test_options_are_those_of_the_command_line() -> None:
    found = read_training_options(["--batches", "64,32", "--arms", "torch,ours_1_rank", "--torch"])
    assert (found.batches, found.arms, found.torch, found.rounds) == ((32, 64), ("torch", "ours_1_rank"), True, 5)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--batches", "33"],
        ["--batches", "many"],
        ["--batches", ""],
        ["--rounds", "0"],
        ["--arms", "jax"],
        ["--sequences", "100"],
        ["--windows", "1000"],
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SettingsError):
        read_training_options(wrong)


def test_torch_is_the_group_s_and_the_cpu_s_build_on_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text('[dependency-groups]\nbench-torch = ["torch==2.13.0"]\n')
    monkeypatch.setattr(sys, "platform", "linux")
    assert torch_environment.requirements(tmp_path)[0] == "torch==2.13.0+cpu"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert torch_environment.requirements(tmp_path)[0] == "torch==2.13.0"


def test_torch_is_in_a_group_that_is_not_installed_by_default() -> None:
    found = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert found["dependency-groups"]["bench-torch"]
    assert "bench-torch" not in found["tool"]["uv"]["default-groups"]

"""Training in a market where there is nothing to learn: killed, stopped, fed nonsense, and not to be fooled."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import psutil
import pytest

from app import contract
from app.serving.scoring import read_spec
from app.tables import get_table, put_table
from app.training.inputs import StoredSplit, read_dataset
from tests.fakes import with_column
from tests.pipeline.conftest import World
from tests.pipeline.planted import FEATURES, HORIZONS_MIN, store_planted
from tests.pipeline.training_job import TrainingJob, assert_same_training, checkpoints

BATCH = 512
NO_SKILL = 0.005
"""Without the plant this network's skill is within 0.001 of 0; with one minute of the future 0.02, with five 0.75."""


def flags(**settings: Any) -> list[str]:
    """A small network on two ranks."""
    small = {"features": FEATURES, "batch": BATCH, "lstm_units": 4, "dense_units": 8, "checkpoint_steps": 2, **settings}
    return [word for name, value in small.items() for word in ("--set", f"training.{name}={json.dumps(value)}")]


ALL_AT_ONCE = flags(epochs=3, learning_rate=0.01, resident_mib=1, compression="fp16", resolution_min=5, dropout=0.2)
"""Dropout, chunks, gradients in half precision, bars of five minutes: whatever could differ after a restart."""


@pytest.fixture(scope="module")
def planted(world: World) -> World:
    """A run with the dataset."""
    run = world.with_run("planted")
    store_planted(run.models, run.run_id)
    return run


@pytest.fixture(scope="module")
def whole(planted: World) -> World:
    """The run, trained without an interruption."""
    planted.must("train", *ALL_AT_ONCE)
    return planted


def with_dataset(planted: World, run_id: str) -> World:
    """Another run with the same dataset."""
    for key in planted.models.keys(f"{contract.DATASETS_PREFIX}{planted.run_id}/"):
        planted.models.put(key.replace(f"/{planted.run_id}/", f"/{run_id}/"), planted.models.get(key))
    return planted.with_run(run_id)


def split_of(run: World, name: str) -> StoredSplit:
    return read_dataset(run.models, run.run_id, FEATURES).split(name)


# --- killed and started again ---------------------------------------------------------------------

_RANK = "training ended with status 137: rank {rank} on {host} was killed by signal 9: start the phase again"
_LINES = {
    **{str(rank): _RANK.format(rank=rank, host=socket.gethostname()) for rank in range(3)},
    "mpirun": "mpirun was killed by signal 9: start the phase again",
}


def assert_kills_change_no_bit(whole: World, run: World, victims: Sequence[str], asked: Sequence[str]) -> None:
    """Of a run that is killed at one of these after the other, and then left alone."""
    for victim in victims:
        job = TrainingJob(run, *asked)
        job.signal(victim, signal.SIGKILL)
        assert job.ended(within_s=30).startswith(f"stockflow: {_LINES[victim]}")
        assert len(checkpoints(run)) <= 4  # the one that was just written, before the oldest is gone
    run.must("train", *asked)
    assert_same_training(run, whole)
    assert len(checkpoints(run)) == 3
    assert not run.models.exists(contract.begun_key(run.run_id))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "victims", [("0", "mpirun"), pytest.param(("1", "0", "mpirun", "1"), marks=pytest.mark.chaos)], ids="-".join
)
def test_a_job_that_is_killed_again_and_again_ends_with_the_bits_of_one_that_was_not(
    whole: World, victims: tuple[str, ...]
) -> None:
    assert_kills_change_no_bit(whole, with_dataset(whole, f"killed-{len(victims)}-times"), victims, ALL_AT_ONCE)


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("ranks", [1, 3])
def test_kills_change_no_bit_of_other_numbers_of_ranks(planted: World, ranks: int) -> None:
    asked = [*ALL_AT_ONCE, "--set", f"training.ranks={ranks}"]
    alone = with_dataset(planted, f"whole-{ranks}")
    alone.must("train", *asked)
    last = str(ranks - 1)
    assert_kills_change_no_bit(alone, with_dataset(planted, f"killed-{ranks}"), [last, "mpirun"], asked)


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_kills_at_any_moment_change_no_bit(whole: World) -> None:
    random = np.random.default_rng(5)
    run = with_dataset(whole, "killed-anywhere")
    for _ in range(12):
        process = run.popen("train", *ALL_AT_ONCE)
        deadline = time.monotonic() + random.uniform(0.5, 20)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        if family:
            family[random.integers(len(family))].kill()
        process.communicate(timeout=120)
        assert not psutil.wait_procs(family, timeout=10)[1]
    run.must("train", *ALL_AT_ONCE)
    assert_same_training(run, whole)


# --- stopped, and fed nonsense --------------------------------------------------------------------


@pytest.fixture(scope="module")
def hung(planted: World) -> tuple[World, str]:
    """A run one of whose ranks stood still in the middle of an epoch, and the line with which it ended."""
    run = with_dataset(planted, "hung")
    job = TrainingJob(run, *flags(epochs=900, kernel="graph", stall_timeout_s=10))
    job.signal("1", signal.SIGSTOP)
    return run, job.ended(within_s=60)


def test_a_rank_that_hangs_ends_the_job_with_the_line_of_one_that_waited_for_it(hung: tuple[World, str]) -> None:
    _, line = hung
    assert line.startswith("stockflow: training ended with status 7: rank 0: nothing got on for 1")
    assert line.endswith("or raise training.stall_timeout_s if it is slow")


def test_a_job_that_has_begun_does_not_go_on_with_other_ranks(hung: tuple[World, str]) -> None:
    run, _ = hung
    done = run.stockflow("train", *flags(epochs=900, kernel="graph", stall_timeout_s=10, ranks=1))
    assert done.returncode == 7
    model_id = checkpoints(run)[-1].split("/")[1]
    assert done.stderr.strip().splitlines()[-1] == (
        f"stockflow: training ended with status 7: rank 0: run hung has begun to train model {model_id}, and its"
        " settings and ranks changed since: go back to them, use another run id, or delete"
        " s3://test-model/models/begun/hung.json to start anew"
    )


def test_a_close_that_is_no_number_is_named_with_ticker_and_time(planted: World) -> None:
    run = with_dataset(planted, "no-number")
    split = split_of(run, "train")
    table = get_table(run.models, split.key)
    close = table["close"].to_numpy().copy()
    close[at := len(close) * 4 // 5] = np.nan
    put_table(run.models, split.key, with_column(table, "close", close), [group.rows for group in split.groups])
    done = run.stockflow("train", *flags(epochs=1, kernel="graph"))
    assert done.returncode == 7
    assert done.stderr.strip().splitlines()[-1] == (
        f"stockflow: training ended with status 7: rank 1: close of {table['ticker'][at]} as of"
        f" {table['ts'][at].as_py().isoformat()} is nan in test-model/{split.key}: look at the bars there, and make the"
        " dataset again"
    )


# --- not to be fooled -----------------------------------------------------------------------------


def test_a_signal_of_the_future_gives_no_skill(whole: World) -> None:
    metrics = whole.result("train")["metrics"]
    for split in ("validation", "test"):
        skills = [of["skill"] for of in metrics[split]["horizons"].values()]
        assert np.abs(skills).max() < NO_SKILL


def test_the_minutes_after_a_decision_would_give_it_away(planted: World) -> None:
    """Volume tells the move of the five minutes before: at the decision none of the next five, a minute later one."""
    split = split_of(planted, "test")
    windows, volume = split.read(), split.table()["log_volume"].to_numpy()
    decided, returns = windows.starts + windows.window - 1, windows.targets[:, HORIZONS_MIN.index(5)]
    explained = [np.corrcoef(volume[decided + later], returns)[0, 1] ** 2 for later in range(6)]
    assert explained == pytest.approx([(later / 5) ** 2 for later in range(6)], abs=0.02)


@pytest.mark.chaos
@pytest.mark.parametrize(("later", "least", "most"), [(5, 0.3, 1), (1, 2 * NO_SKILL, 1), (None, -NO_SKILL, NO_SKILL)])
def test_the_same_network_sees_what_it_is_given_of_the_future_and_without_the_plant_nothing(
    planted: World, later: int | None, least: float, most: float
) -> None:
    run = with_dataset(planted, f"later-{later}")
    for name in ("train", "validation", "test"):
        split = split_of(run, name)
        table = get_table(run.models, split.key)
        volume = table["log_volume"].to_numpy()
        random = np.random.default_rng(0)
        seen = random.permutation(volume) if later is None else np.concatenate([volume[later:], volume[:later]])
        put_table(run.models, split.key, with_column(table, "log_volume", seen), [one.rows for one in split.groups])
    run.must("train", *ALL_AT_ONCE)
    found = run.result("train")["metrics"]["test"]["horizons"]
    assert least < found["1" if later == 1 else "5"]["skill"] < most


# --- what comes out -------------------------------------------------------------------------------


def test_a_model_of_several_horizons_and_features_and_longer_bars_fits_together(whole: World) -> None:
    result = whole.result("train")
    metrics, model_id = result["metrics"], result["model_id"]
    spec = read_spec(whole.models, model_id)
    assert (spec.features, spec.horizons_min, len(spec.volume_profile)) == (FEATURES, HORIZONS_MIN, 390)
    assert np.shape(spec.calibration) == (2, 3)
    assert {np.shape(scale.mean) for scale in spec.scales.values()} == {(3,)}
    assert {np.shape(scale.target_std) for scale in spec.scales.values()} == {(2,)}
    session = onnxruntime.InferenceSession(whole.models.get(contract.model_key(model_id, contract.MODEL_ONNX)))
    (taken,) = session.get_inputs()
    assert taken.shape[1:] == [spec.window_min, 3]
    (forecast,) = session.run(None, {taken.name: np.zeros((5, spec.window_min, 3), np.float32)})
    assert (forecast.shape, forecast.dtype) == ((5, 2, 4), np.float32)
    assert (np.diff(forecast[..., 1:], axis=-1) >= 0).all()
    for of in (metrics["validation"], metrics["test"], metrics["linear"]["test"]):
        assert list(of["horizons"]) == ["1", "5"]
    assert len(metrics["history"]) == 3
    assert 0.75 < metrics["test"]["horizons"]["5"]["coverage"] < 0.85
    mine = metrics["windows_train"] // 2
    assert metrics["steps_per_epoch"] == 3 * (mine // 3 // BATCH) < mine // BATCH  # in three chunks

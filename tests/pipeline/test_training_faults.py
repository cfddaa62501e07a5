"""Training in a market where there is nothing to learn: killed, stopped, fed nonsense, and not to be fooled."""

from __future__ import annotations

import json
import signal
import socket
import time
from typing import Any

import numpy as np
import onnxruntime
import psutil
import pytest

from app import contract
from app.serving.scoring import read_spec
from app.sessions import utc
from app.tables import get_table, put_table
from app.training.inputs import StoredSplit, read_dataset
from app.training.part import stored_part
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
    "1": _RANK.format(rank=1, host=socket.gethostname()),
    "0": _RANK.format(rank=0, host=socket.gethostname()),
    "mpirun": "mpirun was killed by signal 9: start the phase again",
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "victims", [("0", "mpirun"), pytest.param(("1", "0", "mpirun", "1"), marks=pytest.mark.chaos)], ids="-".join
)
def test_a_job_that_is_killed_again_and_again_ends_with_the_bits_of_one_that_was_not(
    whole: World, victims: tuple[str, ...]
) -> None:
    run = with_dataset(whole, f"killed-{len(victims)}-times")
    for victim in victims:
        job = TrainingJob(run, *ALL_AT_ONCE)
        job.signal(victim, signal.SIGKILL)
        assert job.ended(within_s=30).startswith(f"stockflow: {_LINES[victim]}")
        assert len(checkpoints(run)) <= 4  # the one that was just written, before the oldest is gone
    run.must("train", *ALL_AT_ONCE)
    assert_same_training(run, whole)
    assert len(checkpoints(run)) == 3
    assert not run.models.exists(contract.begun_key(run.run_id))


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


def test_a_close_that_is_no_number_is_named_with_rank_step_ticker_and_time(planted: World) -> None:
    run = with_dataset(planted, "no-number")
    split = split_of(run, "train")
    window = split.read(number := split.windows * 4 // 5, number + 1)
    table = get_table(run.models, split.key)
    here = np.array(table["ticker"].to_pylist()) == window.tickers[0]
    here &= table["ts"].cast("int64").to_numpy() == window.as_of[0] * 1000
    close = np.where(here, np.nan, table["close"].to_numpy())
    assert np.isnan(close).sum() == 1
    put_table(run.models, split.key, with_column(table, "close", close), [group.rows for group in split.groups])
    done = run.stockflow("train", *flags(epochs=1, kernel="graph"))
    assert done.returncode == 7
    assert done.stderr.strip().splitlines()[-1] == f"stockflow: training ended with status 7: {first_refusal(run)}"


def first_refusal(run: World) -> str:
    """Of the batch that holds the first window without a target, in the order in which ranks take their parts."""
    found = []
    for rank in range(2):
        part = stored_part(split_of(run, "train"), rank=rank, ranks=2, resident_mib=4096, folder=None)
        for step, batch in enumerate(part.batches(epoch=0, seed=7, batch=BATCH), start=1):
            windows = batch.chunk
            bad = batch.chosen[np.isnan(windows.targets[batch.chosen]).any(axis=1)]
            if len(bad):
                times = sorted({utc(int(ts)).isoformat() for ts in windows.as_of[bad]})
                found.append((step, rank, windows.tickers[windows.ticker[bad[0]]], times))
    step, rank, name, times = min(found)
    when = " to ".join(dict.fromkeys([times[0], times[-1]]))
    return (
        f"rank {rank}: the loss is nan in epoch 1 at step {step}: the targets of {name} as of {when} are no numbers:"
        " look at the bars there"
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

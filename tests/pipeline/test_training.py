"""Training on real MPI ranks: defect 4 of the 2021 system (no broadcast, no checkpoint), and averaging."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from app import contract
from app.errors import ObjectChanged, TrainingError
from app.processes import find_program
from app.serving.scoring import Scorer, promoted_model, read_spec
from app.training.inputs import read_dataset
from app.training.launch import mpirun_command
from app.training.native import why_not
from tests.pipeline.conftest import World

_ROOT = Path(__file__).parents[2]


def test_two_ranks_end_with_the_same_weights_and_a_checkpoint_after_each_epoch(trained: World) -> None:
    result = trained.result("train")
    metrics, model_id = result["metrics"], result["model_id"]
    assert (metrics["ranks"], metrics["rank_weight_max_diff"]) == (2, 0)
    assert metrics["kernel"] == ("xla" if why_not() else "native")
    assert trained.models.keys(contract.checkpoints_prefix(model_id)) == [
        contract.checkpoint_key(model_id, epoch * metrics["steps_per_epoch"]) for epoch in (1, 2)
    ]
    prefix = contract.model_prefix(model_id)
    assert {key.removeprefix(prefix) for key in trained.models.keys(prefix)} >= set(contract.MODEL_FILES)
    assert not trained.models.exists(contract.begun_key(trained.run_id))


def test_the_pointer_names_the_promoted_model(trained: World) -> None:
    assert promoted_model(trained.models).model_id == trained.result("train")["model_id"]
    assert trained.result("promote")["promote"] is True


def test_the_embedded_s3_keeps_one_of_two_that_would_replace_the_same_object(world: World) -> None:
    models, key = world.models, "raced.json"
    for again in (b"2", b"4"):  # where there is none, and where there is one
        tag = models.get_tagged(key)[1] if models.exists(key) else ""
        models.put(key, again, replaces=tag)
        with pytest.raises(ObjectChanged):
            models.put(key, b"0", replaces=tag)
        assert models.get(key) == again


def test_training_leaves_a_candidate_and_a_model_that_is_not_promoted_leaves_the_pointer(trained: World) -> None:
    worse = trained.copy_run("worse")
    model_id = trained.result("train")["model_id"].replace(trained.run_id, "worse")
    for name in contract.MODEL_FILES:  # the same model under another name, as its training would leave it
        old = contract.model_key(trained.result("train")["model_id"], name)
        trained.models.put(contract.model_key(model_id, name), trained.models.get(old))
    candidate = trained.models.get_json(contract.candidate_key(trained.run_id))
    trained.models.put_json(contract.candidate_key("worse"), {**candidate, "model_id": model_id})
    done = worse.stockflow("promote", "--set", "gate.min_skill=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"model {model_id} is not promoted: its skill over persistence, ")
    assert worse.result("promote")["promote"] is False
    assert promoted_model(trained.models).model_id == trained.result("train")["model_id"]


def test_ranks_on_other_hosts_need_neither_variables_nor_credentials(dataset: World, tmp_path: Path) -> None:
    """SageMaker: the dataset is a folder, another run's, and rank 1 knows nothing but where MPI is."""
    run = dataset.copy_run("channel")
    folder = tmp_path / "dataset"
    folder.mkdir()
    for key in run.models.keys(f"{contract.DATASETS_PREFIX}{run.run_id}/"):
        (folder / key.rpartition("/")[2]).write_bytes(run.models.get(key))
        run.models.delete(key)
    script = tmp_path / "rank.sh"
    script.write_text(
        'if [ "$OMPI_COMM_WORLD_RANK" != 0 ]; then\n'
        "  for name in $(env | sed -n 's/^\\(\\(AWS\\|SM\\|STOCKFLOW\\)_[A-Z_]*\\)=.*/\\1/p'); do unset $name; done\n"
        "  export AWS_ENDPOINT_URL=http://127.0.0.1:1 AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none\n"
        'fi\nexec "$@"\n'
    )
    mpirun = mpirun_command(find_program("mpirun", "openmpi-bin"), 2)
    environ = {contract.ENV_DATASET_FOLDER: str(folder), contract.ENV_DATASET_RUN: run.run_id}
    environ[contract.ENV_RUN_ID] = "night"
    environ[contract.ENV_HYPERPARAMETER_SETTINGS] = '{"training":{"epochs":2}}'
    done = subprocess.run(
        [*mpirun, "sh", str(script), sys.executable, str(_ROOT / "docker" / "train.py")],
        env={**run.environ, "PYTHONPATH": str(_ROOT), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert contract.candidate_key(run.run_id) not in run.models.keys(contract.MODELS_PREFIX)
    model_id = run.models.get_json(contract.candidate_key("night"))["model_id"]
    assert model_id.startswith(f"{run.run_id}-")
    metrics = run.models.get_json(contract.model_key(model_id, contract.MODEL_METRICS))
    assert (metrics["ranks"], metrics["rank_weight_max_diff"]) == (2, 0)
    said = [line for line in done.stdout.splitlines() if line.startswith("epoch=")]
    assert [line.split()[0] for line in said] == ["epoch=1", "epoch=2"]
    for line, measured in zip(said, metrics["history"], strict=True):
        words = dict(word.split("=") for word in line.split()[1:])
        assert {name: float(value) for name, value in words.items()} == pytest.approx(
            {name: measured[name] for name in contract.TRAINING_METRICS}, rel=1e-4
        )


def test_step_times_are_those_of_the_steps_that_ran(trained: World) -> None:
    metrics = trained.result("train")["metrics"]
    assert metrics["steps_per_epoch"] == metrics["windows_train"] // (256 * 2)
    for epoch in metrics["history"]:
        assert epoch["s_per_step"] * metrics["steps_per_epoch"] == pytest.approx(epoch["s_per_epoch"])


def test_two_ranks_average_their_gradients(world: World, tmp_path: Path) -> None:
    """Two ranks with 128 windows each take the steps that one rank takes with all 256: weights and Adam's moments."""
    for ranks in (1, 2):
        take_steps(world, tmp_path, ranks, 256 // ranks, "xla", "0", "1")
    alone = arrays(tmp_path / "xla-0-1-0.npz")
    assert min(np.abs(array).max() for array in alone) > 0  # all of it has moved
    assert_same_steps(tmp_path, "xla-0-2", alone)


def test_the_native_layer_takes_the_steps_that_tensorflow_takes(world: World, tmp_path: Path) -> None:
    """With dropout, and means over minutes."""
    for kernel in ("xla", "native"):
        take_steps(world, tmp_path, 2, 128, kernel, "0.3", "3")
    assert_same_steps(tmp_path, "native-0.3-2", arrays(tmp_path / "xla-0.3-2-0.npz"))


@pytest.mark.parametrize("kernel", ["native", "xla"])
def test_a_loss_that_is_no_number_ends_the_job_with_its_batch(world: World, kernel: str) -> None:
    done = run_ranks(world, 2, "tests.pipeline.broken_rank", kernel)
    assert done.returncode == TrainingError.exit_code
    told = [line for line in done.stderr.splitlines() if line.startswith("rank ")]
    assert len(told) == 1
    assert re.match(r"rank 1: the loss is nan in epoch 1 at step \d: with the batch of A as of 1970-01-01T", told[0])


def test_a_rank_that_is_late_is_waited_for_and_one_without_a_compiler_decides_for_all(
    world: World, tmp_path: Path
) -> None:
    done = run_ranks(world, 2, "tests.pipeline.uneven_rank", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("rank ")) == [
        f"rank {rank}: sum 3, xla, differs by 0" for rank in range(2)
    ]
    said = [line for line in done.stderr.splitlines() if line.startswith("rank ")]
    assert len(said) == 1
    assert said[0].startswith("rank 1: the LSTM layer is left to XLA, at half the speed: ")


def take_steps(world: World, folder: Path, ranks: int, batch: int, *options: str) -> None:
    done = run_ranks(world, ranks, "tests.pipeline.average_rank", str(folder), str(batch), *options)
    assert done.returncode == 0, done.stderr


def run_ranks(world: World, ranks: int, *program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*mpirun_command(find_program("mpirun", "openmpi-bin"), ranks), sys.executable, "-m", *program],
        env=world.environ,
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def assert_same_steps(folder: Path, name: str, expected: list[Any]) -> None:
    """Two ranks ended alike, to the last bit, and as expected."""
    first, second = (arrays(folder / f"{name}-{rank}.npz") for rank in range(2))
    for mine, other, array in zip(first, second, expected, strict=True):
        np.testing.assert_array_equal(mine, other)
        np.testing.assert_allclose(mine, array, rtol=0, atol=1e-5 * np.abs(array).max())


def arrays(path: Path) -> list[Any]:
    with np.load(path) as stored:
        return [stored[name] for name in sorted(stored.files)]


def test_the_onnx_model_forecasts_as_keras_did(trained: World) -> None:
    """The metrics of the test split, computed by Keras in training, come out of serving's scorer as well."""
    result = trained.result("train")
    dataset = read_dataset(trained.models, trained.run_id, contract.FEATURES)
    windows = dataset.split("test").read()
    spec = read_spec(trained.models, result["model_id"])
    onnx = trained.models.get(contract.model_key(result["model_id"], contract.MODEL_ONNX))
    names = [windows.tickers[i] for i in windows.ticker]
    mean, std, _ = spec.scaling(names)
    rows = windows.inputs(slice(None)) * std[:, None, :] + mean[:, None, :]
    forecast = Scorer(result["model_id"], onnx, spec).predict(names, rows)
    assert forecast.shape == (len(windows), 2, 4)
    price = windows.last_price[:, None] * np.exp(forecast[..., 0])
    actual = np.log(windows.future_price / windows.last_price[:, None])
    for number, horizon in enumerate(spec.horizons_min):
        measured = result["metrics"]["test"]["horizons"][str(horizon)]
        error = np.abs(price - windows.future_price)[:, number]
        assert error.mean() == pytest.approx(measured["mae_usd"], rel=1e-5)
        below = (actual[:, number, None] <= forecast[:, number, 1:]).mean(axis=0)
        assert below == pytest.approx([measured["below"][name] for name in ("p10", "p50", "p90")], abs=2e-3)


def test_a_rank_that_fails_ends_the_job_with_its_reason(dataset: World) -> None:
    failing = dataset.copy_run("too-few")
    done = failing.stockflow("train", "--set", "training.batch=8192")
    assert done.returncode == 7
    assert done.stderr.strip().splitlines()[-1].startswith("stockflow: training ended with status 7: rank ")
    assert "lower training.batch" in done.stderr
    assert not failing.market.exists(contract.result_key(failing.run_id, "train"))


def test_an_interrupted_training_takes_its_ranks_with_it(dataset: World) -> None:
    process = dataset.copy_run("interrupted-train").popen("train", "--set", "training.epochs=500")
    family: list[psutil.Process] = []
    while len(family) < 3:  # mpirun and two ranks
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
        family = psutil.Process(process.pid).children(recursive=True)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "stockflow: interrupted"
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive


def test_a_missing_mpirun_is_named_with_the_package_to_install(dataset: World) -> None:
    done = dataset.with_run("base", PATH="/nonexistent").stockflow("train")
    assert done.returncode == 9
    assert done.stderr.strip() == (
        "stockflow: mpirun is not installed or not on PATH: type `apt-get install openmpi-bin`"
    )

"""What `mpirun` starts on every rank: ``python -m app.training.worker``.

The same entry runs under plain mpirun, in SageMaker and in a Batch multi-node job. Rank 0 takes everything
from its environment and S3, leaves the model there as the run's candidate, and tells the others what they
need: ranks on other hosts have neither its variables nor credentials. The dataset comes from SageMaker's
channel where there is one; otherwise every rank reads it from S3.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from app import contract
from app.clock import system_clock
from app.dataset.windows import WindowSet
from app.errors import StockflowError, TrainingError
from app.progress import Report, reporter, silent
from app.settings import Place, Settings, load, place_from_environ
from app.storage import Bucket
from app.training.checkpoint import Checkpoint, load_checkpoint, newest_checkpoint, save_checkpoint
from app.training.evaluate import Metrics, evaluate
from app.training.export import export_model
from app.training.inputs import DatasetFolder, read_inputs
from app.training.model import build_model
from app.training.publish import make_model_id, publish_model
from app.training.schedule import learning_rate, rank_batches, steps_per_epoch
from app.training.steps import (
    Resident,
    broadcast,
    get_state,
    make_forecast,
    make_train_step,
    rank_weight_max_diff,
    set_state,
)

_SAMPLE = 64


def main() -> int:
    """Train as one rank of the job; the exit status is that of the error, if any."""
    hvd.init()
    try:
        _train()
        hvd.allreduce(tf.constant(0.0), name="all_done")  # a rank that leaves early would end rank 0's export
    except StockflowError as exc:
        print(f"rank {hvd.rank()}: {exc}", file=sys.stderr, flush=True)
        return exc.exit_code
    except Exception as exc:
        traceback.print_exc()
        print(f"rank {hvd.rank()}: {type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
        return 1
    return 0


def _train() -> None:
    _use_own_device()  # before the first operation of TensorFlow, such as a broadcast
    settings, place, folder = _job()
    report = _reporter() if hvd.rank() == 0 else silent
    # Rank 0 alone has the bucket of models: it keeps checkpoints and publishes.
    models = Bucket(place.model_bucket) if hvd.rank() == 0 else None
    source = DatasetFolder(folder) if folder else models or Bucket(place.model_bucket)
    inputs = read_inputs(source, place.dataset_run, ("train", "validation", *(["test"] if hvd.rank() == 0 else [])))
    # The dataset's own settings count, not those of whoever trains on it.
    settings = settings.model_copy(update={"dataset": inputs.settings})
    # The model is the dataset's, so that another run finds its checkpoints; the candidate is this run's alone.
    model_id = make_model_id(place.dataset_run, inputs.spec, settings)
    trained = _fit(settings, inputs.splits, models, model_id, report)
    if models is not None:
        report(settings.training.epochs, settings.training.epochs, "exporting")
        metrics = _metrics(trained, inputs.splits, settings)
        keras_bytes, onnx_bytes = export_model(trained.model, inputs.splits["test"].inputs(slice(0, _SAMPLE)))
        files = {contract.MODEL_KERAS: keras_bytes, contract.MODEL_ONNX: onnx_bytes}
        publish_model(models, place.run_id, model_id, inputs.spec, settings, files, metrics, system_clock())


def _reporter() -> Report:
    """JSON lines where they are asked for, else plain ones: mpirun's pseudo-terminal is nobody's screen."""
    return reporter("train", "json" if os.environ.get(contract.ENV_PROGRESS) == "json" else "plain")


def _job() -> tuple[Settings, Place, str]:
    """Settings, place and the dataset's folder (empty: none) as rank 0's environment has them."""
    mine = None
    if hvd.rank() == 0:
        mine = load(os.environ), place_from_environ(os.environ), os.environ.get(contract.ENV_DATASET_FOLDER, "")
    told: tuple[Settings, Place, str] = hvd.broadcast_object(mine, root_rank=0, name="job")
    return told


@dataclass(frozen=True)
class _Trained:
    """A fitted model with what was measured on the way; `best_epoch` counts from 1 and is rank 0's."""

    model: Any
    history: list[dict[str, float]]
    steps: int
    rank_weight_max_diff: float
    best_epoch: int


def _fit(
    settings: Settings, splits: dict[str, WindowSet], models: Bucket | None, model_id: str, report: Report
) -> _Trained:
    """Train all epochs that the newest checkpoint has not seen. models: rank 0's alone."""
    training = settings.training
    train, validation = splits["train"], splits["validation"]
    steps = steps_per_epoch(len(train), batch=training.batch, ranks=hvd.size())
    if not steps:
        raise TrainingError(
            f"{len(train)} training windows do not fill one step of {hvd.size()} ranks x {training.batch}:"
            " lower training.batch"
        )
    keras.utils.set_random_seed(training.seed)
    model = build_model(train.window, train.rows.shape[1], training)
    optimizer = keras.optimizers.Adam(training.learning_rate)
    optimizer.build(model.trainable_variables)
    resumed = newest_checkpoint(models, model_id) if models is not None else None
    if resumed is not None:
        set_state(model, optimizer, resumed.state)
    broadcast(model, optimizer)
    first_epoch = int(hvd.broadcast(tf.constant(resumed.epoch if resumed else 0), root_rank=0))
    history = list(resumed.history) if resumed else []
    train_step = make_train_step(model, optimizer, Resident(train))
    forecast = make_forecast(model, Resident(validation))
    for epoch in range(first_epoch, training.epochs):
        started = time.perf_counter()
        loss = _run_epoch(epoch, steps, len(train), settings, model, optimizer, train_step, report)
        elapsed = time.perf_counter() - started
        row = {"loss": loss, "validation_loss": _validation_loss(forecast, validation), "s_per_epoch": elapsed}
        row |= {"s_per_step": elapsed / steps, "sequences_per_s": steps * training.batch * hvd.size() / elapsed}
        history.append(row)
        if models is not None:
            save_checkpoint(models, model_id, Checkpoint(epoch + 1, get_state(model, optimizer), history))
            print(epoch_line(epoch + 1, row), flush=True)
            note = f"epochs, loss {row['loss']:.4f}, validation {row['validation_loss']:.4f},"
            report(epoch + 1, training.epochs, f"{note} {row['sequences_per_s']:,.0f} sequences/s")
    difference = rank_weight_max_diff(model)
    best_epoch = 0
    if models is not None:  # rank 0, which alone knows the epochs before a resumption, and alone publishes
        best_epoch = 1 + int(np.argmin([row["validation_loss"] for row in history]))
        set_state(model, optimizer, load_checkpoint(models, model_id, best_epoch).state)
    return _Trained(model, history, steps, difference, best_epoch)


def _run_epoch(
    epoch: int,
    steps: int,
    windows: int,
    settings: Settings,
    model: Any,
    optimizer: Any,
    train_step: Any,
    report: Report,
) -> float:
    """One epoch of this rank; returns the mean training loss over all ranks."""
    training = settings.training
    if training.dropout:  # restarts from the epoch and the rank, so that a resumed run draws the same masks
        model.get_layer("dropout").seed_generator.state.assign([training.seed + hvd.rank(), epoch])
    batches = rank_batches(
        windows, batch=training.batch, rank=hvd.rank(), ranks=hvd.size(), epoch=epoch, seed=training.seed
    )
    warmup_steps = round(training.warmup_epochs * steps)
    losses = []
    for number, chosen in enumerate(batches):
        step = epoch * steps + number
        rate = learning_rate(step, base=training.learning_rate, ranks=hvd.size(), warmup_steps=warmup_steps)
        optimizer.learning_rate.assign(rate)
        losses.append(train_step(chosen))
        if number == 0:
            report(epoch, training.epochs, "epochs")
    loss = float(hvd.allreduce(tf.reduce_mean(tf.stack(losses)), op=hvd.Average))
    if not np.isfinite(loss):
        raise TrainingError(f"the loss is {loss} in epoch {epoch + 1}: lower training.learning_rate")
    return loss


def epoch_line(epoch: int, row: Mapping[str, float]) -> str:
    """What an epoch measured, as ``name=value`` words of plain decimals, for whoever reads the log."""
    return " ".join([f"epoch={epoch}", *(f"{name}={row[name]:.6f}" for name in contract.TRAINING_METRICS)])


def _validation_loss(forecast: Any, validation: WindowSet) -> float:
    """Mean squared error in units of target_std over all validation windows, each rank doing its share."""
    mine = np.arange(hvd.rank(), len(validation), hvd.size())
    error = forecast(mine) - (validation.targets / validation.target_std)[mine]
    total = hvd.allreduce(tf.constant(float(np.square(error, dtype=np.float64).sum())), op=hvd.Sum)
    return float(total) / len(validation)


def _metrics(trained: _Trained, splits: dict[str, WindowSet], settings: Settings) -> dict[str, Any]:
    return {
        "validation": _split_metrics(trained.model, splits["validation"]).to_json(),
        "test": _split_metrics(trained.model, splits["test"]).to_json(),
        "windows_train": len(splits["train"]),
        "ranks": hvd.size(),
        "rank_weight_max_diff": trained.rank_weight_max_diff,
        "steps_per_epoch": trained.steps,
        "best_epoch": trained.best_epoch,
        "batch": settings.training.batch,
        "history": trained.history,
    }


def _split_metrics(model: Any, windows: WindowSet) -> Metrics:
    forecast = make_forecast(model, Resident(windows))(np.arange(len(windows)))
    predicted = (forecast * windows.target_std).astype(np.float64)
    return evaluate(predicted, windows.last_price, windows.future_price)


def _use_own_device() -> None:
    """One GPU a rank where there are any; this machine's cores shared between its ranks."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.set_visible_devices(gpus[hvd.local_rank() % len(gpus)], "GPU")
    threads = max(1, len(os.sched_getaffinity(0)) // hvd.local_size())
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


if __name__ == "__main__":
    sys.exit(main())

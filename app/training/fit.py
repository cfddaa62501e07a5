"""The loop over epochs and steps that every rank runs, and that goes on where a checkpoint stands."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from app.dataset.windows import Index, WindowSet
from app.errors import TrainingError
from app.sessions import utc
from app.settings import TrainingSettings
from app.training.checkpoint import Checkpoints
from app.training.model import build_model
from app.training.native import why_not
from app.training.part import Batch, Part
from app.training.resumption import Row, all_losses, resume, save
from app.training.schedule import learning_rate
from app.training.steps import Forecaster, Resident, TrainStep, kernel_times, make_optimizer, rank_weight_max_diff
from app.training.watchdog import Watchdog

_SHOWN = 6
"""Tickers of a batch that an error names."""


@dataclass(frozen=True)
class Trained:
    """A fitted model, on rank 0 with the weights of its best epoch, and what was measured on the way.

    history: a row for each epoch; best_epoch: counts from 1; start_s: until the first step was done, compilation
    included; train_s: all later steps of this process, without checkpoints and validation.
    """

    model: Any
    history: list[Row]
    steps_per_epoch: int
    best_epoch: int
    rank_weight_max_diff: float
    kernel: str
    kernel_s: dict[str, float]
    start_s: float
    train_s: float


def fit(
    settings: TrainingSettings,
    train: Part,
    validation: WindowSet,
    checkpoints: Checkpoints | None,
    watchdog: Watchdog,
    on_epoch: Callable[[int, Row], None] = lambda epoch, row: None,
    on_start: Callable[[int], None] = lambda epoch: None,
) -> Trained:
    """Train until the last epoch, from the newest checkpoint on.

    train: this rank's part; validation: this rank's share of the validation windows; checkpoints: rank 0's alone.
    on_epoch: told the finished epoch, from 1, and what it measured. on_start: told the epoch of the first step.
    """
    fitting = _Fitting(settings, train, validation, checkpoints, watchdog)
    at = fitting.at
    while at.epoch < settings.epochs:
        at.history.append(fitting.epoch(on_start))
        if _best_epoch(at.history) == len(at.history):
            at.best = [np.asarray(variable) for variable in fitting.model.weights]
        at.epoch, at.done, at.losses = at.epoch + 1, 0, []
        fitting.save()
        on_epoch(at.epoch, at.history[-1])
    difference = rank_weight_max_diff(fitting.model)
    for variable, array in zip(fitting.model.weights, at.best, strict=True):
        variable.assign(array)
    return Trained(
        model=_in_float32(fitting.model, settings),
        history=at.history,
        steps_per_epoch=fitting.steps,
        best_epoch=_best_epoch(at.history),
        rank_weight_max_diff=difference,
        kernel=at.kernel,
        kernel_s=fitting.kernel_s,
        start_s=fitting.start_s,
        train_s=fitting.train_s,
    )


@dataclass(frozen=True)
class _Taken:
    """A step that was taken: where in the job, with what, this rank's loss and the share of ranks without one."""

    where: str
    batch: Batch
    loss: Any
    broken: Any


class _Fitting:
    """A model in training on one rank."""

    def __init__(
        self,
        settings: TrainingSettings,
        train: Part,
        validation: WindowSet,
        checkpoints: Checkpoints | None,
        watchdog: Watchdog,
    ) -> None:
        self._begun = time.perf_counter()
        self._settings, self._train, self._checkpoints, self._watchdog = settings, train, checkpoints, watchdog
        self.start_s = self.train_s = 0.0
        self.kernel_s: dict[str, float] = {}
        self.steps = train.steps_per_epoch(settings.batch)
        self._warmup = round(settings.warmup_epochs * self.steps)
        keras.utils.set_random_seed(settings.seed)
        shape = validation.window, validation.rows.shape[1], validation.targets.shape[1]
        self.model = build_model(*shape, settings)
        self._optimizer = make_optimizer(self.model, settings)
        watchdog.beat("looking for a checkpoint")
        self.at = resume(checkpoints, self.model, self._optimizer)
        watchdog.beat("the first step, which is compiled")
        self._chunk, self._data = train.chunk(0), Resident(train.chunk(0))
        if not self.at.kernel:
            self.at.kernel = settings.kernel if settings.kernel != "auto" else self._best_kernel()
            watchdog.beat("the first step, which is compiled")
        self._step = TrainStep(self.model, self._optimizer, settings, self.at.kernel)
        self._validate = _Validation(self.model, validation, watchdog)

    def epoch(self, on_start: Callable[[int], None]) -> Row:
        """The rest of the running epoch; returns what it measured."""
        at, settings = self.at, self._settings
        taken_s, timed_from = 0.0, at.done
        last: _Taken | None = None
        tick = time.perf_counter()
        for batch in self._train.batches(epoch=at.epoch, seed=settings.seed, batch=settings.batch, position=at.done):
            taken = self._take(batch)
            _check(last)
            last = taken
            if not self.start_s:
                float(last.loss)
                on_start(at.epoch)
                tick = time.perf_counter()  # the first step compiles: it counts to the start
                self.start_s, timed_from = tick - self._begun, at.done
            if self._is_due():
                _check(last)
                taken_s += time.perf_counter() - tick
                self.save()
                tick = time.perf_counter()
        _check(last)
        taken_s += time.perf_counter() - tick
        self.train_s += taken_s
        per_step = taken_s / (at.done - timed_from) if at.done > timed_from else self.start_s
        return {
            "loss": float(all_losses(at.losses).mean(dtype=np.float64)),
            "validation_loss": self._validate(),
            "s_per_epoch": per_step * self.steps,
            "s_per_step": per_step,
            "sequences_per_s": settings.batch * hvd.size() / per_step,
        }

    def save(self) -> None:
        """Write a checkpoint of where the job stands."""
        self._watchdog.beat("writing a checkpoint")
        save(self._checkpoints, self.at, self._done(), self.model, self._optimizer)

    def _take(self, batch: Batch) -> _Taken:
        if batch.chunk is not self._chunk:
            self._chunk, self._data = batch.chunk, Resident(batch.chunk)
        base, number = self._settings.learning_rate, self._done()
        rate = learning_rate(number, base=base, ranks=hvd.size(), warmup_steps=self._warmup)
        loss, broken = self._step(self._data, batch.chosen, rate=rate, number=number)
        self.at.losses.append(loss)
        self.at.done += 1
        where = f"in epoch {self.at.epoch + 1} at step {self.at.done}"
        self._watchdog.beat(where)
        return _Taken(where, batch, loss, broken)

    def _done(self) -> int:
        """Steps of the whole job that are done."""
        return self.at.epoch * self.steps + self.at.done

    def _is_due(self) -> bool:
        """Whether a checkpoint is due; the end of an epoch writes its own."""
        every = self._settings.checkpoint_steps
        return bool(every) and self._done() % every == 0 and self.at.done < self.steps

    def _best_kernel(self) -> str:
        """One choice for all ranks, for kernels round differently: on GPUs what is the fastest on rank 0's."""
        mine: dict[str, float] = {}
        if hvd.rank() == 0:
            mine = kernel_times(self.model, self._optimizer, self._data, self._settings.batch)
        self.kernel_s = hvd.broadcast_object(mine, root_rank=0, name="kernel")
        if self.kernel_s:
            return min(self.kernel_s, key=self.kernel_s.__getitem__)
        if self._settings.precision != "float32":
            return "xla"
        obstacle = why_not()
        if obstacle:
            print(f"rank {hvd.rank()}: the LSTM layer is left to XLA, at half the speed: {obstacle}", file=sys.stderr)
        anywhere = hvd.allreduce(tf.constant(float(bool(obstacle))), op=hvd.Max, name="native")
        return "xla" if float(anywhere) else "native"


def _in_float32(model: Any, settings: TrainingSettings) -> Any:
    """The same weights, which are float32 in every policy, in a network that computes in it too: that one serves."""
    if settings.precision == "float32":
        return model
    _, window, features = model.input_shape
    copy = build_model(window, features, model.output_shape[1], settings.model_copy(update={"precision": "float32"}))
    copy.set_weights(model.get_weights())
    return copy


class _Validation:
    """The validation loss over all ranks' shares: the same on every rank."""

    def __init__(self, model: Any, windows: WindowSet, watchdog: Watchdog) -> None:
        self._forecast, self._data = Forecaster(model), Resident(windows)
        self._windows, self._watchdog = windows, watchdog

    def __call__(self) -> float:
        _, losses = self._forecast(self._data, lambda: self._watchdog.beat("validation"))
        broken = np.flatnonzero(~np.isfinite(losses))
        if len(broken):
            raise TrainingError(f"the loss is {losses[broken[0]]} in validation: {_blamed(self._windows, broken)}")
        mine = tf.constant([losses.sum(dtype=np.float64), len(losses)], tf.float64)
        total, count = hvd.allreduce(mine, op=hvd.Sum, name="validation").numpy()
        return float(total / count)


def _check(taken: _Taken | None) -> None:
    """TrainingError on the rank whose loss is no number; the others wait for the end that it brings.

    Looked at a step late, so that a GPU need not wait: by then the weights of all ranks may be broken.
    """
    if taken is None or not float(taken.broken):
        return
    if np.isfinite(float(taken.loss)):
        hvd.allreduce(tf.constant(0.0), name="broken")
    blamed = _blamed(taken.batch.chunk, taken.batch.chosen)
    raise TrainingError(f"the loss is {float(taken.loss)} {taken.where}: {blamed}")


def _blamed(windows: WindowSet, chosen: Index) -> str:
    """What to do about a batch without a loss: its windows by name and time. All that was read is finite."""
    names = sorted({windows.tickers[i] for i in windows.ticker[chosen]})
    more = f" and {len(names) - _SHOWN} others" if len(names) > _SHOWN else ""
    times = dict.fromkeys(utc(int(ts)).isoformat() for ts in (windows.as_of[chosen].min(), windows.as_of[chosen].max()))
    where = f"{', '.join(names[:_SHOWN])}{more} as of {' to '.join(times)}"
    return f"with the batch of {where}: look at the bars there, or lower training.learning_rate"


def _best_epoch(history: list[Row]) -> int:
    return 1 + int(np.argmin([row["validation_loss"] for row in history]))

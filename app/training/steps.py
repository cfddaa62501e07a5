"""One step over all ranks, and forecasts in fixed chunks.

With Keras 3, Horovod's own optimizer wrapper and tape do not average gradients, and do not say so. What
averages: gradients taken with respect to `variable.value` in one function, `hvd.allreduce` outside of it, then
`apply_gradients`. Horovod's operations cannot stand inside a function that XLA compiles.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from app.dataset.features import FloatArray, Rows
from app.dataset.windows import Index, WindowSet
from app.settings import TrainingSettings
from app.training.model import window_losses
from app.training.native import NativeLstm

_CHUNK = 1024
_ROW_STEP = 1 << 14
"""Rows are padded to a multiple of it: chunks of like size share one compiled function."""


class Resident:
    """Windows from which batches are gathered by number, on the device once they are asked for there.

    scaled: their targets (windows, horizons) in units of target_std.
    """

    def __init__(self, windows: WindowSet) -> None:
        self.windows = windows
        self.scaled = windows.targets / windows.target_std

    @cached_property
    def rows(self) -> Any:
        """(rows, features), each held once."""
        spare = -len(self.windows.rows) % _ROW_STEP
        return tf.constant(np.pad(self.windows.rows, ((0, spare), (0, 0))))

    @cached_property
    def starts(self) -> Any:
        """(windows,): row of the first minute of each."""
        return tf.constant(self.windows.starts.astype(np.int32))

    @cached_property
    def targets(self) -> Any:
        """(windows, horizons), in units of target_std."""
        return tf.constant(self.scaled)


class TrainStep:
    """One step of all ranks: gradients of each rank's batch, averaged, applied. kernel: "xla", "graph" or "native"."""

    def __init__(self, model: Any, optimizer: Any, settings: TrainingSettings, kernel: str) -> None:
        variables = model.trainable_variables
        compression = {"none": hvd.Compression.none, "fp16": hvd.Compression.fp16}[settings.compression]
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        self._units, self._dropped = settings.lstm_units, settings.dropout
        self._seed = settings.seed, hvd.rank()

        @tf.function(autograph=False, jit_compile=kernel != "graph")  # type: ignore[untyped-decorator]
        def update(averaged: Any, rate: Any) -> None:
            inner.learning_rate.assign(rate)
            terms = tf.split(averaged, [math.prod(variable.shape) for variable in variables])
            shaped = [tf.reshape(term, variable.shape) for term, variable in zip(terms, variables, strict=True)]
            optimizer.apply_gradients(zip(shaped, variables, strict=True))

        def apply(loss: Any, gradient: Any, rate: Any) -> Any:
            broken = tf.cast(tf.logical_not(tf.math.is_finite(loss)), tf.float32)
            averaged = tf.concat([gradient, [broken]], axis=0)  # as one tensor: Horovod's time goes by their number
            if hvd.size() > 1:  # alone, it would wait for Horovod's next cycle all the same
                averaged = hvd.allreduce(averaged, op=hvd.Average, compression=compression, name="gradient")
            update(averaged[:-1], rate)
            return loss, averaged[-1]

        self._step = (
            _native_step(NativeGradient(model, settings), apply)
            if kernel == "native"
            else _graph_step(make_gradient(model, optimizer, kernel), apply)
        )

    def __call__(self, data: Resident, chosen: Index, *, rate: float, number: int) -> tuple[Any, Any]:
        """Take the step `number` of the job with the windows numbered chosen (batch,).

        Returns this rank's loss, and the share of ranks whose loss is no number.
        """
        loss, broken = self._step(data, chosen, self._kept(len(chosen), number), tf.constant(rate, tf.float32))
        return loss, broken

    def _kept(self, count: int, number: int) -> Rows:
        """What the LSTM's outputs are multiplied with (count, units): dropout.

        It follows from seed, rank and step: there is nothing to remember between steps.
        """
        # Three numbers, the last one not 0: none of the streams of app.training.part.
        random = np.random.default_rng((*self._seed, number + 1))
        drawn = random.random((count, self._units), np.float32)
        return np.where(drawn >= self._dropped, np.float32(1 / (1 - self._dropped)), np.float32(0))


def _graph_step(gradient_of: Callable[..., Any], apply: Callable[..., Any]) -> Callable[..., Any]:
    """All of a step in TensorFlow's graph, Horovod's operations included."""

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def whole(rows: Any, starts: Any, targets: Any, chosen: Any, kept: Any, rate: Any) -> Any:
        return apply(*gradient_of(rows, starts, targets, chosen, kept), rate)

    def step(data: Resident, chosen: Index, kept: Rows, rate: Any) -> Any:
        which = tf.constant(chosen.astype(np.int32))
        return whole(data.rows, data.starts, data.targets, which, tf.constant(kept), rate)

    return step


def _native_step(gradient_of: NativeGradient, apply: Callable[..., Any]) -> Callable[..., Any]:
    """The gradient outside of TensorFlow's graph, Horovod's operations inside."""
    applied = tf.function(apply, autograph=False)

    def step(data: Resident, chosen: Index, kept: Rows, rate: Any) -> Any:
        loss, gradient = gradient_of(data, chosen, kept)
        return applied(tf.constant(loss), tf.constant(gradient), rate)

    return step


class NativeGradient:
    """Mean loss and gradient of a batch on a CPU, with the LSTM layer of app.training.native.

    PART: windows that go forward and back together, which bounds what the layer keeps in between.
    """

    PART: ClassVar[int] = 1024

    def __init__(self, model: Any, settings: TrainingSettings) -> None:
        layer = model.get_layer("lstm")
        minutes = settings.resolution_min
        self._lstm = NativeLstm(
            layer,
            steps=model.input_shape[1] // minutes,
            minutes=minutes,
            threads=max(1, tf.config.threading.get_intra_op_parallelism_threads()),
        )
        below = len(layer.trainable_variables)
        values = [variable.value for variable in model.trainable_variables[below:]]
        above = keras.Model(model.get_layer("dropout").output, model.output)

        @tf.function(autograph=False, jit_compile=True)  # type: ignore[untyped-decorator]
        def gradient_above(hidden: Any, kept: Any, targets: Any, share: Any) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([hidden, *values])
                loss = tf.reduce_mean(window_losses(above(hidden * kept, training=True), targets)) * share
            by_hidden, *by_values = tape.gradient(loss, [hidden, *values])
            return loss, by_hidden, _flat(by_values)

        self._above = gradient_above

    def __call__(self, data: Resident, chosen: Index, kept: Rows) -> tuple[np.float32, Rows]:
        """As what make_gradient returns."""
        windows = data.windows
        losses, gradients = [], []
        for first in range(0, len(chosen), self.PART):
            of_part = slice(first, first + self.PART)
            taken = chosen[of_part]
            hidden = self._lstm.forward(windows.rows, windows.starts[taken])
            share = np.float32(len(taken) / len(chosen))
            given = hidden, kept[of_part], data.scaled[taken], share
            loss, by_hidden, by_values = (array.numpy() for array in self._above(*map(tf.constant, given)))
            losses.append(loss)
            gradients.append(np.concatenate([*map(np.ravel, self._lstm.backward(by_hidden)), by_values]))
        return np.add.reduce(losses), np.add.reduce(gradients)


def make_gradient(model: Any, optimizer: Any, kernel: str) -> Callable[..., Any]:
    """The function (rows, starts, targets, chosen, kept) -> (mean loss, its gradient), windows gathered inside of it.

    kept: (batch, LSTM units), what the LSTM's outputs are multiplied with. It is drawn by the caller: XLA's own random
    numbers on a CPU took a fifth of the step. The gradient is that of all weights, one after the other (weights,).
    """
    values = [variable.value for variable in model.trainable_variables]
    scaled = optimizer.scale_loss if hasattr(optimizer, "scale_loss") else (lambda loss: loss)
    window = model.input_shape[1]
    below = keras.Model(model.input, model.get_layer("lstm").output)
    above = keras.Model(model.get_layer("dropout").output, model.output)

    @tf.function(autograph=False, jit_compile=kernel == "xla")  # type: ignore[untyped-decorator]
    def gradient_of(rows: Any, starts: Any, targets: Any, chosen: Any, kept: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            hidden = below(_gather(rows, starts, chosen, window), training=True)
            forecast = above(hidden * tf.cast(kept, hidden.dtype), training=True)
            loss = tf.reduce_mean(window_losses(forecast, tf.gather(targets, chosen)))
            whole = scaled(loss)
        return loss, _flat(tape.gradient(whole, values))

    made: Callable[..., Any] = gradient_of
    return made


def kernel_times(model: Any, optimizer: Any, data: Resident, batch: int) -> dict[str, float]:
    """Seconds of twenty batches' gradients by XLA, and on a GPU by the graph with cuDNN's LSTM; nothing on a CPU."""
    if not tf.config.list_logical_devices("GPU"):
        return {}
    chosen = tf.zeros(batch, tf.int32)
    kept = tf.ones((batch, model.get_layer("lstm").units))
    taken: dict[str, float] = {}
    for kernel in ("xla", "graph"):
        gradient_of = make_gradient(model, optimizer, kernel)
        for number in range(25):
            if number == 5:  # the first ones compile
                started = time.perf_counter()
            loss, _ = gradient_of(data.rows, data.starts, data.targets, chosen, kept)
            float(loss)
        taken[kernel] = time.perf_counter() - started
    return taken


class Forecaster:
    """Forecasts of windows, without dropout, in chunks of one size: one compilation for each set of rows."""

    def __init__(self, model: Any) -> None:
        window = model.input_shape[1]

        @tf.function(autograph=False, jit_compile=True)  # type: ignore[untyped-decorator]
        def chunk(rows: Any, starts: Any, targets: Any, chosen: Any) -> Any:
            forecast = model(_gather(rows, starts, chosen, window), training=False)
            return forecast, window_losses(forecast, tf.gather(targets, chosen))

        self._chunk = chunk
        self._outputs = model.output_shape[1:]

    def __call__(self, data: Resident, on_chunk: Callable[[], None] = lambda: None) -> tuple[Rows, Rows]:
        """Forecasts (n, horizons, 4) of all n windows and the loss of each (n,), in units of target_std."""
        forecasts, losses = [np.empty((0, *self._outputs), np.float32)], [np.empty(0, np.float32)]
        count = len(data.windows.starts)
        for first in range(0, count, _CHUNK):
            held = min(_CHUNK, count - first)
            chosen = tf.constant(np.pad(np.arange(first, first + held), (0, _CHUNK - held)).astype(np.int32))
            forecast, loss = self._chunk(data.rows, data.starts, data.targets, chosen)
            forecasts.append(forecast.numpy()[:held])
            losses.append(loss.numpy()[:held])
            on_chunk()
        return np.concatenate(forecasts), np.concatenate(losses)


def make_optimizer(model: Any, settings: TrainingSettings) -> Any:
    """Adam, with its loss scaled where gradients in half precision would vanish."""
    optimizer: Any = keras.optimizers.Adam(settings.learning_rate)
    if settings.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def broadcast(model: Any, optimizer: Any) -> None:
    """Give every rank rank 0's weights and optimizer state."""
    hvd.broadcast_variables([variable.value for variable in _state(model, optimizer)], root_rank=0)


def get_state(model: Any, optimizer: Any) -> list[Any]:
    """Weights and optimizer state as arrays, in a fixed order."""
    return [np.asarray(variable) for variable in _state(model, optimizer)]


def set_state(model: Any, optimizer: Any, arrays: list[Any]) -> None:
    """The inverse of get_state."""
    for variable, array in zip(_state(model, optimizer), arrays, strict=True):
        variable.assign(array)


def rank_weight_max_diff(model: Any) -> float:
    """Largest difference of any weight between any rank and rank 0; the same answer on all ranks."""
    flat = np.concatenate([np.asarray(variable).ravel() for variable in model.weights])
    gathered: FloatArray = hvd.allgather(tf.constant(flat[None, :])).numpy()  # (ranks, weights)
    return float(np.abs(gathered - gathered[0]).max())


def _gather(rows: Any, starts: Any, chosen: Any, window: int) -> Any:
    """Inputs (batch, window, features) of the windows numbered `chosen` (batch,)."""
    return tf.gather(rows, tf.gather(starts, chosen)[:, None] + tf.range(window, dtype=tf.int32))


def _flat(gradients: list[Any]) -> Any:
    return tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], axis=0)


def _state(model: Any, optimizer: Any) -> list[Any]:
    return [*model.weights, *optimizer.variables]

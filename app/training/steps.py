"""The compiled parts of training: one step over all ranks, and forecasts in fixed chunks.

With Keras 3, Horovod's own optimizer wrapper and tape do not average gradients, and do not say so. What
averages: gradients taken with respect to `variable.value` in an XLA function, `hvd.grouped_allreduce`
outside of it, then `apply_gradients`. Horovod's operations cannot stand inside an XLA function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

from app.dataset.features import FloatArray, Rows
from app.dataset.windows import Index, WindowSet

_CHUNK = 1024


class Resident:
    """A split in memory, from which batches are gathered by window number."""

    def __init__(self, windows: WindowSet) -> None:
        self._rows = tf.constant(windows.rows)  # (rows, features)
        self._starts = tf.constant(windows.starts.astype(np.int32))  # (windows,)
        self._targets = tf.constant(windows.targets / windows.target_std)  # (windows,)
        self._offsets = tf.range(windows.window, dtype=tf.int32)  # (window,)

    def inputs(self, chosen: Any) -> Any:
        """Inputs (batch, window, features) of the windows numbered `chosen` (batch,)."""
        starts = tf.gather(self._starts, chosen)
        return tf.gather(self._rows, starts[:, None] + self._offsets)

    def targets(self, chosen: Any) -> Any:
        """Targets (batch,) in units of target_std."""
        return tf.gather(self._targets, chosen)


def make_train_step(model: Any, optimizer: Any, data: Resident) -> Callable[[Index], Any]:
    """One step: gradients of this rank's batch, averaged over all ranks, applied. Returns the loss."""
    variables = model.trainable_variables
    values = [variable.value for variable in variables]

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
    def loss_and_gradients(chosen: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            forecast = model(data.inputs(chosen), training=True)[:, 0]
            loss = tf.reduce_mean(tf.square(forecast - data.targets(chosen)))
        return loss, tape.gradient(loss, values)

    @tf.function  # type: ignore[untyped-decorator]
    def step(chosen: Any) -> Any:
        loss, gradients = loss_and_gradients(chosen)
        averaged = hvd.grouped_allreduce(gradients, op=hvd.Average)
        optimizer.apply_gradients(zip(averaged, variables, strict=True))
        return loss

    return lambda chosen: step(tf.constant(chosen.astype(np.int32)))


def make_forecast(model: Any, data: Resident) -> Callable[[Index], Rows]:
    """Forecasts of the windows numbered (n,): float32 (n,) in units of target_std, without dropout."""

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
    def chunk(chosen: Any) -> Any:
        return model(data.inputs(chosen), training=False)[:, 0]

    def forecast(chosen: Index) -> Rows:
        parts = [np.empty(0, np.float32)]
        for first in range(0, len(chosen), _CHUNK):
            part = chosen[first : first + _CHUNK]
            padded = np.pad(part, (0, _CHUNK - len(part)))  # one shape, one compilation
            parts.append(chunk(tf.constant(padded.astype(np.int32))).numpy()[: len(part)])
        return np.concatenate(parts)

    return forecast


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


def _state(model: Any, optimizer: Any) -> list[Any]:
    return [*model.weights, *optimizer.variables]

"""The arm `keras_fit`: what Keras gives to whoever calls `fit`. `python -m benchmarks.training_keras JOB`.

Arrays of whole windows: a tf.data pipeline that shuffles single windows is slower, one that gathers batches is not
faster.
"""

from __future__ import annotations

import sys
from typing import Any

import keras
import tensorflow as tf

from benchmarks.training_data import FEATURES, WINDOW_MIN, make_data
from benchmarks.training_job import WARM_STEPS, TrainingJob, Watch


class _Epoch(keras.callbacks.Callback):  # type: ignore[misc]
    """Times an epoch and nothing around it."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._watch.begin()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._watch.end()


def main(arguments: list[str]) -> int:
    """Train as the job says."""
    job = TrainingJob.read(arguments[0])
    tf.config.threading.set_intra_op_parallelism_threads(job.threads)
    tf.config.threading.set_inter_op_parallelism_threads(job.threads)
    keras.utils.set_random_seed(job.seed)
    watch = Watch(job)
    data = make_data(job.windows, job.seed)
    inputs, targets = data.materialised(), data.targets
    model = original_model()
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")

    def fit(windows: int, *callbacks: Any) -> float:
        chosen = slice(0, windows)
        found = model.fit(
            inputs[chosen], targets[chosen], batch_size=job.batch, epochs=1, verbose=0, callbacks=list(callbacks)
        )
        return float(found.history["loss"][-1])

    watch.ready()
    fit(job.batch)
    watch.compiled()
    fit(WARM_STEPS * job.batch)
    loss = fit(job.steps * job.batch, _Epoch(watch))
    watch.write(loss, {"keras": keras.__version__, "tensorflow": tf.__version__})
    return 0


def original_model() -> Any:
    """The 2021 system's network."""
    return keras.Sequential(
        [
            keras.layers.Input((WINDOW_MIN, FEATURES)),
            keras.layers.LSTM(50),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(1),
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

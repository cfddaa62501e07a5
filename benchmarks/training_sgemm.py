"""What one core can multiply: the limit that training is held against. `python -m benchmarks.training_sgemm JOB`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.training_job import TrainingJob, Watch

_SIDE = 2048
_REPEATS = 7


def main(arguments: list[str]) -> int:
    """Multiply large matrices with NumPy and with TensorFlow; the faster one counts."""
    job = TrainingJob.read(arguments[0])
    tf.config.threading.set_intra_op_parallelism_threads(job.threads)
    watch = Watch(job)
    left, right = np.random.default_rng(job.seed).standard_normal((2, _SIDE, _SIDE), dtype=np.float32)
    ours, theirs = tf.constant(left), tf.constant(right)
    watch.ready()
    found = {"numpy": _gflops(lambda: left @ right), "tensorflow": _gflops(lambda: tf.matmul(ours, theirs).numpy())}
    watch.compiled()
    watch.begin()
    watch.end()
    watch.write(
        0.0, {f"sgemm by {name}": f"{value:.1f} GFLOP/s" for name, value in found.items()}, gflops=max(found.values())
    )
    return 0


def _gflops(multiply: Callable[[], Any]) -> float:
    """Of the median product; each takes 2 n^3 operations."""
    taken_s = []
    for _ in range(_REPEATS + 1):
        begun_s = time.perf_counter()
        multiply()
        taken_s.append(time.perf_counter() - begun_s)
    return 2 * _SIDE**3 / float(np.median(taken_s[1:])) / 1e9


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

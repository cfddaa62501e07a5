"""Which processor a rank computes on."""

from __future__ import annotations

import os

import horovod.tensorflow as hvd
import tensorflow as tf


def use_own_device() -> None:
    """One GPU a rank where there are any; this machine's cores shared between its ranks."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.set_visible_devices(gpus[hvd.local_rank()], "GPU")
    threads = max(1, len(os.sched_getaffinity(0)) // hvd.local_size())
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)

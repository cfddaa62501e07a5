"""Our arms: one rank of `app.training.fit`, started by mpirun. `python -m benchmarks.training_rank JOB`.

Nothing stands in for the training itself: its part of the windows, its step, its Horovod. The benchmark hands
it windows from memory, keeps the first epoch short, and reads the clock as the second one begins and ends.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import horovod
import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from app.dataset.windows import WindowSet
from app.settings import TrainingSettings
from app.training.fit import fit
from app.training.part import Batch, Load, Part
from app.training.watchdog import Watchdog
from benchmarks.training_data import WINDOW_MIN, make_data
from benchmarks.training_job import WARM_STEPS, TrainingJob, Watch

_STALL_S = 300.0
_VALIDATION = 1024


class TimedPart(Part):
    """A part whose first epoch only warms up, and whose second one is timed."""

    def __init__(self, load: Load, job: TrainingJob, watch: Watch) -> None:
        super().__init__(load, job.windows, rank=hvd.rank(), ranks=hvd.size())
        self._job, self._watch = job, watch

    def batches(self, *, epoch: int, seed: int, batch: int, position: int = 0) -> Iterator[Batch]:
        """As a part's, as many as are wanted; the watch is told where they begin and end."""
        taken = super().batches(epoch=epoch, seed=seed, batch=batch, position=position)
        self._watch.begin() if epoch else self._watch.ready()
        for number, one in zip(range(self._job.steps if epoch else WARM_STEPS), taken, strict=False):
            if not epoch and number == 1:
                self._watch.compiled()
            yield one
        if epoch:
            self._watch.end()


def main(arguments: list[str]) -> int:
    """Train as one rank of the job."""
    hvd.init()
    job = TrainingJob.read(arguments[0]).of_rank(hvd.rank())
    tf.config.threading.set_intra_op_parallelism_threads(job.threads)
    tf.config.threading.set_inter_op_parallelism_threads(job.threads)
    watch = Watch(job)
    windows = as_windows(job.windows, job.seed)
    settings = TrainingSettings(
        ranks=job.ranks, epochs=2, batch=job.batch, seed=job.seed, checkpoint_steps=0, warmup_epochs=0
    )
    with Watchdog(hvd.rank(), _STALL_S) as watchdog:
        part = TimedPart(windows.between, job, watch)
        trained = fit(settings, part, windows.between(0, _VALIDATION), None, watchdog)
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__, "horovod": horovod.__version__}
    versions["kernel"] = trained.kernel
    watch.write(trained.history[-1]["loss"], versions, weight_diff=trained.rank_weight_max_diff)
    return 0


def as_windows(count: int, seed: int) -> WindowSet:
    """The benchmark's data as a rank holds them."""
    data = make_data(count, seed)
    ones = np.ones(count)
    return WindowSet(
        rows=data.rows,
        starts=data.starts,
        targets=data.targets[:, None],
        last_price=ones,
        future_price=ones[:, None],
        target_std=ones[:, None].astype(np.float32),
        ticker=np.zeros(count, np.int64),
        as_of=np.zeros(count, np.int64),
        tickers=("SIM001",),
        window=WINDOW_MIN,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

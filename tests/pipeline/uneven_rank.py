"""One rank of a training whose second rank comes late and has no compiler: what test_training.py starts under mpirun.

``python -m tests.pipeline.uneven_rank FOLDER``, which is empty. Each rank prints what all of them came to.
"""

from __future__ import annotations

import os
import sys
import time

import horovod.tensorflow as hvd
import tensorflow as tf

from app import contract
from app.settings import TrainingSettings
from app.training.fit import fit
from app.training.part import Part
from app.training.watchdog import Watchdog
from tests.pipeline.average_rank import WINDOWS, given

LATE_S = 2.0


def main(folder: str) -> None:
    hvd.init()
    if hvd.rank() == 1:
        os.environ |= {contract.ENV_CACHE_DIR: folder, "CXX": f"{folder}/none"}
        time.sleep(LATE_S)
    met = float(hvd.allreduce(tf.constant(float(hvd.rank() + 1)), op=hvd.Sum, name="met"))
    settings = TrainingSettings(lstm_units=8, dense_units=8, batch=64, epochs=2)
    windows = given()
    part = Part(windows.between, WINDOWS, rank=hvd.rank(), ranks=hvd.size())
    with Watchdog(hvd.rank(), 100) as watchdog:
        trained = fit(settings, part, windows, None, watchdog)
    print(f"rank {hvd.rank()}: sum {met:g}, {trained.kernel}, differs by {trained.rank_weight_max_diff:g}", flush=True)
    hvd.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])

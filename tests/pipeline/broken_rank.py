"""One rank of a training whose second rank has a target that is no number: what test_training.py starts under mpirun.

``python -m tests.pipeline.broken_rank KERNEL``.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import horovod.tensorflow as hvd
import numpy as np

from app.errors import TrainingError
from app.settings import TrainingSettings
from app.training.fit import fit
from app.training.part import Part
from app.training.watchdog import Watchdog
from tests.pipeline.average_rank import WINDOWS, given

BATCH = 16
BROKEN = WINDOWS - 1


def main(kernel: str) -> None:
    hvd.init()
    settings = TrainingSettings.model_validate(
        {"kernel": kernel, "lstm_units": 8, "dense_units": 8, "batch": BATCH, "epochs": 1}
    )
    windows = given()
    targets = windows.targets.copy()
    targets[BROKEN, 0] = np.nan
    part = Part(replace(windows, targets=targets).between, WINDOWS, rank=hvd.rank(), ranks=hvd.size())
    try:
        with Watchdog(hvd.rank(), 100) as watchdog:
            fit(settings, part, windows, None, watchdog)
    except TrainingError as exc:
        print(f"rank {hvd.rank()}: {exc}", file=sys.stderr, flush=True)
        os._exit(exc.exit_code)


if __name__ == "__main__":
    main(sys.argv[1])

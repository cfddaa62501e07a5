"""One rank of `benchmarks.forecast`: trains as the worker does, writes what the model is worth, publishes nothing."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import horovod.tensorflow as hvd

from app.settings import load
from app.training.device import use_own_device
from app.training.fit import fit
from app.training.inputs import DatasetFolder, read_dataset
from app.training.judge import judge, train_sums
from app.training.part import stored_part
from app.training.watchdog import Watchdog


def main(folder: str, result: str) -> None:
    """folder: mirrors `datasets/<run>/`; result: the JSON file that rank 0 writes."""
    hvd.init()
    use_own_device()
    settings = load(os.environ).training
    dataset = read_dataset(DatasetFolder(folder), "bench", settings.features)
    split = dataset.split("train")
    part = stored_part(split, rank=hvd.rank(), ranks=hvd.size(), resident_mib=settings.resident_mib, folder=None)
    validation = dataset.split("validation").share(hvd.rank(), hvd.size())
    with Watchdog(hvd.rank(), settings.stall_timeout_s) as watchdog:
        trained = fit(settings, part, validation, None, watchdog)
        sums = train_sums(part, watchdog.beat)
    if hvd.rank() == 0:
        judged = judge(trained, dataset, sums, settings.seed, watchdog.beat)
        found = {
            "validation": judged.validation.to_json(),
            "test": judged.test.to_json(),
            "linear": judged.linear.to_json(),
            "history": trained.history,
            "train_s": trained.train_s,
            "start_s": trained.start_s,
            "best_epoch": trained.best_epoch,
            "steps_per_epoch": trained.steps_per_epoch,
            "windows": split.windows,
        }
        Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What `mpirun` starts on every rank: ``python -m app.training.worker``.

The same entry runs under plain mpirun, in SageMaker and in a Batch multi-node job. Rank 0 takes everything
from its environment and S3, leaves the model there as the run's candidate, and tells the others what they
need: ranks on other hosts have neither its variables nor credentials. The dataset comes from SageMaker's
channel where there is one; otherwise every rank reads it from S3.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from functools import partial

import horovod.tensorflow as hvd
import psutil
import tensorflow as tf

from app import contract
from app.errors import StockflowError, TrainingError
from app.progress import Report, reporter, silent
from app.settings import Place, Settings, TrainingSettings, load, place_from_environ
from app.storage import Bucket
from app.training.device import use_own_device
from app.training.fit import fit
from app.training.inputs import DatasetFolder, StoredDataset, read_dataset
from app.training.job import Job
from app.training.judge import train_sums
from app.training.launch import check_gpus
from app.training.part import Part, stored_part
from app.training.resumption import Row
from app.training.watchdog import Watchdog

_LEAST_MEETING_S = 60.0
"""The other ranks may still be importing what this one has."""


def main() -> int:
    """Train as one rank of the job. A rank that fails ends at once with the status of its error.

    It tells Horovod nothing: ranks that are told fail too, and mpirun would report the one that is done first.
    """
    rank = int(os.environ.get(contract.ENV_RANK, "0"))
    try:
        # Another host's rank has no settings of the job yet: it waits as long as the default is.
        with Watchdog(rank, max(_LEAST_MEETING_S, load(os.environ).training.stall_timeout_s)) as watchdog:
            watchdog.beat("meeting the other ranks")
            hvd.init()
            check_gpus(hvd.local_size(), len(tf.config.list_physical_devices("GPU")), socket.gethostname())
            use_own_device()  # before the first operation of TensorFlow, such as a broadcast
            told = _told_job()
        _train(*told)
    except Exception as exc:
        if not isinstance(exc, StockflowError):
            traceback.print_exc()
        kind = "" if isinstance(exc, StockflowError) else f"{type(exc).__name__}: "
        print(f"rank {rank}: {kind}{exc}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(exc.exit_code if isinstance(exc, StockflowError) else 1)
    return 0


def _train(settings: Settings, place: Place, folder: str) -> None:
    started = psutil.Process().create_time()
    training = settings.training.model_copy(update={"ranks": hvd.size()})  # whoever started them decided that
    report = _reporter() if hvd.rank() == 0 else silent
    with Watchdog(hvd.rank(), training.stall_timeout_s) as watchdog:
        bucket = partial(Bucket, place.model_bucket, on_answer=watchdog.still)
        # Rank 0 alone has the bucket of models: it keeps checkpoints and publishes.
        models = bucket() if hvd.rank() == 0 else None
        source = DatasetFolder(folder) if folder else models or bucket()
        dataset = read_dataset(source, place.dataset_run, training.features)
        # The dataset's own settings count, not those of whoever trains on it.
        settings = settings.model_copy(update={"dataset": dataset.settings, "training": training})
        watchdog.beat("reading the training rows")
        part = _part(dataset, training)
        job = Job(models, place, dataset, settings, hvd.size()) if models is not None else None
        began: list[float] = []

        def on_start(epoch: int) -> None:
            began.append(time.time())
            report(epoch, training.epochs, "epochs")

        trained = fit(
            training,
            part,
            dataset.split("validation").share(hvd.rank(), hvd.size()),
            job.checkpoints() if job else None,
            watchdog,
            on_epoch=partial(_told, report, training.epochs),
            on_start=on_start,
        )
        sums = train_sums(part, watchdog.beat)
        if job is None:
            _wait(watchdog)
            return
        report(training.epochs, training.epochs, "measuring and exporting")
        times = {"startup_s": began[0] - started if began else 0.0, "train_s": trained.train_s}
        job.publish(trained, sums, {**times, "wall_s": time.time() - started}, partial(_goes_on, watchdog))
        _goes_on(watchdog, "")


def _goes_on(watchdog: Watchdog, doing: str) -> None:
    """Rank 0, which works alone, tells the others that it gets on; doing nothing, that it is done."""
    hvd.broadcast(tf.constant(float(bool(doing))), root_rank=0, name="alone")
    watchdog.beat(doing)


def _wait(watchdog: Watchdog) -> None:
    """The other ranks' part of it: a rank that leaves would end rank 0's work, one that waits may have to for long."""
    while float(hvd.broadcast(tf.constant(0.0), root_rank=0, name="alone")):
        watchdog.beat("waiting for rank 0")


def _part(dataset: StoredDataset, training: TrainingSettings) -> Part:
    """This rank's training windows. SageMaker's channel is S3 too: its files are no copies."""
    split, disk = dataset.split("train"), tempfile.gettempdir()
    part = stored_part(split, rank=hvd.rank(), ranks=hvd.size(), resident_mib=training.resident_mib, folder=disk)
    if not part.steps_per_epoch(training.batch):
        cut = f" in {part.chunks} chunks" if part.chunks > 1 else ""
        raise TrainingError(
            f"{split.windows} training windows{cut} do not fill one step of {hvd.size()} ranks x {training.batch}:"
            f" lower training.batch{' or raise training.resident_mib' if cut else ''}"
        )
    return part


def _told(report: Report, epochs: int, epoch: int, row: Row) -> None:
    """Rank 0 says what an epoch measured."""
    if hvd.rank() == 0:
        print(epoch_line(epoch, row), flush=True)
        note = f"epochs, loss {row['loss']:.4f}, validation {row['validation_loss']:.4f},"
        report(epoch, epochs, f"{note} {row['sequences_per_s']:,.0f} sequences/s")


def _reporter() -> Report:
    """JSON lines where they are asked for, else plain ones: mpirun's pseudo-terminal is nobody's screen."""
    return reporter("train", "json" if os.environ.get(contract.ENV_PROGRESS) == "json" else "plain")


def _told_job() -> tuple[Settings, Place, str]:
    """Settings, place and the dataset's folder (empty: none) as rank 0's environment has them."""
    mine = None
    if hvd.rank() == 0:
        mine = load(os.environ), place_from_environ(os.environ), os.environ.get(contract.ENV_DATASET_FOLDER, "")
    told: tuple[Settings, Place, str] = hvd.broadcast_object(mine, root_rank=0, name="job")
    return told


def epoch_line(epoch: int, row: Mapping[str, float]) -> str:
    """What an epoch measured, as ``name=value`` words of plain decimals, for whoever reads the log."""
    return " ".join([f"epoch={epoch}", *(f"{name}={row[name]:.6f}" for name in contract.TRAINING_METRICS)])


if __name__ == "__main__":
    sys.exit(main())

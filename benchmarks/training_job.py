"""What the training benchmark hands to a process of an arm and gets back. Standard library alone: torch's
environment holds little else.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from benchmarks.arms import peak_rss_mib

WARM_STEPS = 10
"""Before the steps that are timed, the first of which compiles."""
_EVERY_S = 0.001
_MEET_WITHIN_S = 300.0

Versions = dict[str, str]


@dataclass(frozen=True)
class TrainingJob:
    """One process's part of an arm.

    batch: windows in one step of one rank. ranks: processes that average their gradients. parties: processes of the
    arm that begin together, of which this is `number`; mpirun's ranks add theirs. windows: of the data, in all.
    sequences: to be timed in each process. begun_s: reading of the monotonic clock when the arm was started.
    """

    arm: str
    batch: int
    threads: int
    ranks: int
    parties: int
    number: int
    windows: int
    sequences: int
    seed: int
    folder: str
    begun_s: float

    @property
    def steps(self) -> int:
        """Steps that are timed."""
        return self.sequences // self.batch

    def of_rank(self, rank: int) -> TrainingJob:
        """The part of one of mpirun's ranks."""
        return replace(self, number=self.number + rank)

    def write(self) -> Path:
        """Store it for its process."""
        path = Path(self.folder, f"job-{self.number}.json")
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: str) -> TrainingJob:
        """As written by write."""
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class TrainingRun:
    """What one process measured.

    sequences, wall_s and cpu_s (of all its threads): of the timed steps alone. startup_s: from the start of the arm to
    the first step; compile_s: the first step. loss: mean of the timed steps, or the last one's. weight_diff: between
    ranks, largest. gflops: of the arm that multiplies matrices.
    """

    sequences: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    startup_s: float = 0.0
    compile_s: float = 0.0
    loss: float = 0.0
    weight_diff: float = 0.0
    peak_rss_mib: float = 0.0
    gflops: float = 0.0
    versions: Versions = field(default_factory=dict)

    @property
    def is_sound(self) -> bool:
        """Whether something was learnt, and the same on all ranks."""
        return math.isfinite(self.loss) and self.weight_diff == 0


class Watch:
    """The clock of one process: ready, compiled, begin, end, in this order."""

    def __init__(self, job: TrainingJob) -> None:
        self._job = job
        self._ready_s = self._compiled_s = self._begun_s = self._ended_s = self._cpu_s = 0.0

    def ready(self) -> None:
        """All is there, and the first step begins."""
        self._ready_s = time.monotonic()

    def compiled(self) -> None:
        """The first step is done."""
        self._compiled_s = time.monotonic()

    def begin(self) -> None:
        """Wait for the other parties, then time what follows."""
        meet(Path(self._job.folder), self._job.number, self._job.parties)
        self._cpu_s = time.process_time()
        self._begun_s = time.monotonic()

    def end(self) -> None:
        """The timed steps are done."""
        self._ended_s = time.monotonic()
        self._cpu_s = time.process_time() - self._cpu_s

    def write(self, loss: float, versions: Versions, *, weight_diff: float = 0.0, gflops: float = 0.0) -> None:
        """Store what was measured where the benchmark looks for it."""
        run = TrainingRun(
            sequences=self._job.steps * self._job.batch,
            wall_s=self._ended_s - self._begun_s,
            cpu_s=self._cpu_s,
            startup_s=self._ready_s - self._job.begun_s,
            compile_s=self._compiled_s - self._ready_s,
            loss=loss,
            weight_diff=weight_diff,
            peak_rss_mib=peak_rss_mib(),
            gflops=gflops,
            versions=versions,
        )
        path = Path(self._job.folder, f"run-{self._job.number}.json")
        path.write_text(json.dumps(asdict(run)), encoding="utf-8")


def read_runs(folder: Path) -> list[TrainingRun]:
    """What all processes of an arm measured."""
    return [TrainingRun(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("run-*.json"))]


def meet(folder: Path, number: int, parties: int) -> None:
    """Return when so many parties have come to this point; TimeoutError when one does not come."""
    (folder / f"ready-{number}").touch()
    give_up = time.monotonic() + _MEET_WITHIN_S
    while len(list(folder.glob("ready-*"))) < parties:
        if time.monotonic() > give_up:
            raise TimeoutError(f"the other parties did not come within {_MEET_WITHIN_S:g} s")
        time.sleep(_EVERY_S)

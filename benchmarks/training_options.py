"""What the training benchmark measures, from its command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.errors import SettingsError
from app.options import counts, words
from benchmarks.training_job import WARM_STEPS


@dataclass(frozen=True)
class Arm:
    """A way to train. module: what each process runs; processes: of them; together: whether these are ranks of one
    training; threads: of each process; note: what the table says of it.
    """

    name: str
    module: str
    processes: int
    together: bool
    threads: int
    note: str

    @property
    def ranks(self) -> int:
        """Processes that average their gradients."""
        return self.processes if self.together else 1


ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("ours_1_rank", "training_rank", 1, True, 1, "app.training.fit, 1 rank"),
        Arm("ours_pair", "training_rank", 2, False, 1, "two such trainings side by side, each for itself"),
        Arm("ours_2_ranks", "training_rank", 2, True, 1, "app.training.fit, 2 ranks"),
        Arm("keras_fit", "training_keras", 1, True, 1, "model.fit on arrays of windows"),
        Arm("keras_fit_2_threads", "training_keras", 1, True, 2, "the same with 2 threads"),
        Arm("torch", "training_torch", 1, True, 1, "nn.LSTM"),
        Arm("torch_2_threads", "training_torch", 1, True, 2, "the same with 2 threads"),
        Arm("torch_ddp", "training_torch", 2, True, 1, "nn.LSTM, 2 processes, DistributedDataParallel (gloo)"),
    )
}
SGEMM = Arm("sgemm", "training_sgemm", 1, True, 1, "large square products of one core")

_RANKS = 2


@dataclass(frozen=True)
class TrainingOptions:
    """What to measure. sequences: timed in each process; torch: whether to install it for its arms."""

    batches: tuple[int, ...] = (256, 1024)
    rounds: int = 5
    arms: tuple[str, ...] = tuple(ARMS)
    windows: int = 200_000
    sequences: int = 65_536
    seed: int = 7
    torch: bool = False
    folder: Path = Path("build/bench")

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if not self.batches or min(*self.batches, self.rounds, self.sequences) < 1:
            raise SettingsError("rounds, sequences and each batch must be at least 1, and there must be a batch")
        if odd := [batch for batch in self.batches if batch % _RANKS]:
            raise SettingsError(f"batch {odd[0]} cannot be halved for {_RANKS} ranks: name even ones")
        if max(self.batches) > self.sequences:
            raise SettingsError(f"{self.sequences} sequences do not fill a batch of {max(self.batches)}: raise them")
        if max(self.sequences, WARM_STEPS * max(self.batches)) > self.windows // _RANKS:
            raise SettingsError(
                f"a rank holds {self.windows // _RANKS} of {self.windows} windows, fewer than it trains on: raise"
                " windows, or lower sequences and batches"
            )
        if unknown := [arm for arm in self.arms if arm not in ARMS]:
            raise SettingsError(f"unknown arms {', '.join(unknown)}: there are {', '.join(ARMS)}")

    def to_json(self) -> dict[str, Any]:
        """As stored."""
        return {**asdict(self), "folder": str(self.folder)}


def read_training_options(arguments: Sequence[str] | None) -> TrainingOptions:
    """The command line's; SettingsError for a value that makes no sense."""
    default = TrainingOptions()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description="Time the training against others."
    )
    add = parser.add_argument
    add("--batches", default=",".join(map(str, default.batches)), help="windows in one step of one rank: %(default)s")
    add("--rounds", type=int, default=default.rounds, help="of all arms")
    add("--arms", default=",".join(ARMS), help="the arms to time, of %(default)s")
    add("--windows", type=int, default=default.windows, help="of the data")
    add("--sequences", type=int, default=default.sequences, help="timed in each process of an arm")
    add("--seed", type=int, default=default.seed, help="of data, weights and shuffles")
    add("--torch", action="store_true", help="install torch into build/torch, where it is not there")
    add("--folder", type=Path, default=default.folder, help="where the results go")
    found = parser.parse_args(arguments)
    return TrainingOptions(
        batches=counts(found.batches, "batches"),
        rounds=found.rounds,
        arms=words(found.arms),
        windows=found.windows,
        sequences=found.sequences,
        seed=found.seed,
        torch=found.torch,
        folder=found.folder,
    )

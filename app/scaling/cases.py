"""The cases of a sweep, what was measured of each, and what follows: speed-up and efficiency."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.errors import TrainingError


@dataclass(frozen=True)
class Case:
    """Training on `nodes` x `gpus` ranks with `batch` windows in one step of each rank."""

    nodes: int
    gpus: int
    batch: int

    @property
    def ranks(self) -> int:
        """One for each GPU of each node."""
        return self.nodes * self.gpus

    @property
    def effective_batch(self) -> int:
        """Windows in one step of all ranks."""
        return self.ranks * self.batch

    @property
    def name(self) -> str:
        """As part of a run's name: ``2x1-b32``."""
        return f"{self.nodes}x{self.gpus}-b{self.batch}"


@dataclass(frozen=True)
class Times:
    """What the training of a case took.

    waited_s: until machines, image and data were there. startup_s: from the ranks' start to the end of their first
    step, compilation included. train_s: all steps. rest_s: export and all else of the job. sleep_s: what SageMaker's
    toolkit sleeps after it. What is not known is None.
    """

    s_per_epoch: float
    s_per_step: float
    sequences_per_s: float
    waited_s: float | None = None
    startup_s: float | None = None
    train_s: float | None = None
    rest_s: float | None = None
    sleep_s: float | None = None


@dataclass(frozen=True)
class Row:
    """A case with its times, or with the error that it ended with. note: what its reader has to know."""

    case: Case
    times: Times | None = None
    note: str = ""
    error: str = ""


def make_cases(nodes: Iterable[int], gpus: Iterable[int], batches: Iterable[int]) -> list[Case]:
    """All combinations, the cheapest first, so that the 1 x 1 cases are there before what is held against them."""
    found = {Case(n, g, b) for n in nodes for g in gpus for b in batches}
    return sorted(found, key=lambda case: (case.ranks, case.nodes, -case.batch))


def read_times(metrics: Mapping[str, Any]) -> Times:
    """Times from a model's metrics.json: medians of its epochs, without the first where there are more.

    The first epoch holds the compilation. Raises TrainingError when there is no epoch.
    """
    history = metrics.get("history") or ()
    if not history:
        raise TrainingError("the model's metrics.json holds no history: it was trained by another version; train again")
    steady = history[1:] or history
    names = ("s_per_epoch", "s_per_step", "sequences_per_s")
    medians = {name: statistics.median(float(epoch[name]) for epoch in steady) for name in names}
    return Times(**medians, startup_s=_seconds(metrics, "startup_s"), train_s=_seconds(metrics, "train_s"))


def _seconds(metrics: Mapping[str, Any], name: str) -> float | None:
    return float(metrics[name]) if metrics.get(name) is not None else None


def speedup(row: Row, rows: Iterable[Row]) -> float | None:
    """How many times shorter an epoch is than on 1 x 1 with the same batch a rank; None where either is missing."""
    alone = next((one for one in rows if one.times and one.case == Case(1, 1, row.case.batch)), None)
    return _times_shorter(alone, row)


def whole_speedup(row: Row, rows: Sequence[Row]) -> float | None:
    """The same against the smallest batch on 1 x 1: what ranks and batch bring together."""
    alone = [one for one in rows if one.times and one.case.ranks == 1]
    return _times_shorter(min(alone, key=lambda one: one.case.batch, default=None), row)


def efficiency(row: Row, rows: Iterable[Row]) -> float | None:
    """The speed-up for each rank: 1 where more ranks cost nothing."""
    times = speedup(row, rows)
    return None if times is None else times / row.case.ranks


def to_json(row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    """A row with what follows from it and the others, as stored."""
    return {
        **asdict(row.case),
        "ranks": row.case.ranks,
        "effective_batch": row.case.effective_batch,
        **(asdict(row.times) if row.times else dict.fromkeys(Times.__dataclass_fields__)),
        "speedup": speedup(row, rows),
        "efficiency": efficiency(row, rows),
        "note": row.note,
        "error": row.error,
    }


def _times_shorter(alone: Row | None, row: Row) -> float | None:
    if alone is None or alone.times is None or row.times is None:
        return None
    return alone.times.s_per_epoch / row.times.s_per_epoch

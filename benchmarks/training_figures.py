"""The training benchmark's figures: pure functions from what was measured to what is reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from app.scaling.cases import Case, Row
from app.scaling.original import row_at
from benchmarks.figures import Spread, spread
from benchmarks.training_arms import Sample
from benchmarks.training_data import FEATURES, WINDOW_MIN
from benchmarks.training_options import ARMS, TrainingOptions
from benchmarks.verdict import Goal

_UNITS, _DENSE = 50, 32

Key = tuple[str, int]
"""An arm and its batch."""
Rounds = Mapping[Key, Sequence[Sample]]
"""A sample for each round, in order."""


def sequence_flops() -> float:
    """Operations that one sequence takes, two for each multiplication and addition of the matrices.

    Forward: four gates of the LSTM in each minute, then both dense layers; backward: twice that.
    """
    lstm = WINDOW_MIN * 4 * _UNITS * (FEATURES + _UNITS)
    return 3.0 * 2 * (lstm + _UNITS * _DENSE + _DENSE)


def training_figures(rounds: Rounds, sgemm: Sequence[Sample], options: TrainingOptions) -> dict[str, Any]:
    """All figures; None for what was not measured."""
    rates = {key: _over(samples, lambda one: one.sequences_per_s) for key, samples in rounds.items()}
    best = {arm: _best(arm, rates) for arm in ARMS if arm != "ours_pair"}
    limit = _over(sgemm, lambda one: one.gflops)
    ours = best["ours_1_rank"]
    return {
        "sequences_per_s": {arm: found and _median(rates[found]) for arm, found in best.items()},
        "best_batch": {arm: found and found[1] for arm, found in best.items()},
        "weak_efficiency": _by_batch(options.batches, lambda batch: _middle(weak_ratios(rounds, batch))),
        "strong_efficiency": _by_batch(options.batches, lambda batch: _middle(strong_ratios(rounds, batch))),
        "sgemm_share": _share(_median(rates[ours]), _median(limit)) if ours and limit else None,
        "sgemm_gflops": limit,
        "sequence_mflop": sequence_flops() / 1e6,
        "weak_scaling": [_weak(rounds, batch) for batch in options.batches],
        "strong_scaling": [_strong(rounds, batch) for batch in options.batches],
        "rows": [_row(key, samples) for key, samples in rounds.items() if samples],
        "versions": _versions([*(one for samples in rounds.values() for one in samples[:1]), *sgemm[:1]]),
    }


def weak_ratios(rounds: Rounds, batch: int) -> list[float]:
    """By round: both ranks of one training together, over two trainings of their own together."""
    pairs = zip(rounds.get(("ours_2_ranks", batch), ()), rounds.get(("ours_pair", batch), ()), strict=False)
    return [ranks.sequences_per_s / alone.sequences_per_s for ranks, alone in pairs]


def strong_ratios(rounds: Rounds, batch: int) -> list[float]:
    """By round: T1 / (2 T2), where two ranks take half the batch each."""
    pairs = zip(rounds.get(("ours_2_ranks", batch // 2), ()), rounds.get(("ours_1_rank", batch), ()), strict=False)
    return [ranks.sequences_per_s / (2 * alone.sequences_per_s) for ranks, alone in pairs]


def scaling_rows(rounds: Rounds) -> list[Row]:
    """Our arms as the cases of a sweep, for its tables and pictures; an epoch is as long as the original's."""
    found = []
    for (arm, batch), samples in rounds.items():
        rate = _median(_over(samples, lambda one: one.sequences_per_s))
        if rate and arm in ("ours_1_rank", "ours_2_ranks"):
            found.append(row_at(Case(1, ARMS[arm].ranks, batch), rate))
    return found


def training_goals(figures: Mapping[str, Any]) -> list[Goal]:
    """The bars that the training is held to."""
    rates, weak = figures["sequences_per_s"], figures["weak_efficiency"]
    best = "best batch of each"

    def times(other: str) -> float | None:
        return rates["ours_1_rank"] / rates[other] if rates["ours_1_rank"] and rates[other] else None

    return [
        Goal("sequences/s of 2 ranks", rates["ours_2_ranks"], 40_400, True, "2 CPU cores, best batch"),
        Goal("1 rank over keras.fit, 1 thread each", times("keras_fit"), 1.5, True, best),
        Goal("1 rank over PyTorch, 1 thread each", times("torch"), 2.0, True, best),
        Goal("weak efficiency, 1 to 2 ranks", weak.get("256"), 0.93, True, "batch 256 a rank"),
        Goal("weak efficiency, 1 to 2 ranks", weak.get("1024"), 0.97, True, "batch 1024 a rank"),
    ]


def unsound(rounds: Rounds) -> list[str]:
    """Arms whose loss is no number, or whose ranks drifted apart, in words."""
    return [
        f"{arm} at batch {batch}: its loss is {one.loss:g}, or its ranks hold different weights"
        for (arm, batch), samples in rounds.items()
        for one in samples
        if not one.is_sound or not math.isfinite(one.loss)
    ]


def _row(key: Key, samples: Sequence[Sample]) -> dict[str, Any]:
    """One line of the whole table."""
    arm, batch = ARMS[key[0]], key[1]
    return {
        "arm": arm.name,
        "batch": batch,
        "ranks": arm.ranks,
        "processes": arm.processes,
        "threads": arm.threads,
        "sequences_per_s": _over(samples, lambda one: one.sequences_per_s),
        "wall_s": _over(samples, lambda one: one.wall_s),
        "cpu_s": _over(samples, lambda one: one.cpu_s),
        "cpu_us_per_sequence": _over(samples, lambda one: one.cpu_s / one.sequences * 1e6),
        "cores_busy": _over(samples, lambda one: one.cpu_s / one.wall_s),
        "startup_s": _over(samples, lambda one: one.startup_s),
        "compile_s": _over(samples, lambda one: one.compile_s),
        "loss": _over(samples, lambda one: one.loss),
        "peak_rss_mib": max(round(one.peak_rss_mib, 1) for one in samples),
    }


def _weak(rounds: Rounds, batch: int) -> dict[str, Any]:
    """Twice the work on two ranks."""
    return {
        "batch": batch,
        "independent": _rate(rounds, "ours_pair", batch),
        "ranks": _rate(rounds, "ours_2_ranks", batch),
        "efficiency": spread(weak_ratios(rounds, batch)),
    }


def _strong(rounds: Rounds, batch: int) -> dict[str, Any]:
    """The same work on two ranks."""
    return {
        "batch": batch,
        "batch_a_rank": batch // 2,
        "one_rank": _rate(rounds, "ours_1_rank", batch),
        "ranks": _rate(rounds, "ours_2_ranks", batch // 2),
        "efficiency": spread(strong_ratios(rounds, batch)),
    }


def _rate(rounds: Rounds, arm: str, batch: int) -> float | None:
    return _median(_over(rounds.get((arm, batch), ()), lambda one: one.sequences_per_s))


def _best(arm: str, rates: Mapping[Key, Spread | None]) -> Key | None:
    """The arm's key with the highest median."""
    own = {key: found["median"] for key, found in rates.items() if key[0] == arm and found}
    return max(own, key=own.__getitem__) if own else None


def _share(sequences_per_s: float | None, gflops: float | None) -> float | None:
    return sequences_per_s * sequence_flops() / (gflops * 1e9) if sequences_per_s and gflops else None


def _by_batch(batches: Iterable[int], figure: Callable[[int], float | None]) -> dict[str, float | None]:
    return {str(batch): figure(batch) for batch in batches}


def _versions(samples: Iterable[Sample]) -> dict[str, str]:
    return {name: version for one in samples for name, version in one.versions.items()}


def _over(samples: Sequence[Sample], figure: Callable[[Sample], float]) -> Spread | None:
    return spread([figure(one) for one in samples])


def _median(found: Spread | None) -> float | None:
    return found["median"] if found else None


def _middle(values: Sequence[float]) -> float | None:
    return _median(spread(values))

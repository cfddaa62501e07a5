"""Phase II against the clock: `python -m benchmarks.training`, or `make bench-training` (docs/training_benchmarks.md).

The original's model on the same data by every arm, round by round, each process in an interpreter of its own. What came
of it is printed and lies in build/bench/. Exit code 0 unless a result is wrong: a bar that is missed is printed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence

from app.errors import StockflowError
from app.scaling import original
from app.scaling.plots import draw
from benchmarks.ground import WrongResult
from benchmarks.machine import describe_machine
from benchmarks.torch_environment import find_torch, provide_torch
from benchmarks.training_arms import Sample, run_arm
from benchmarks.training_figures import Key, scaling_rows, training_figures, training_goals, unsound
from benchmarks.training_options import ARMS, SGEMM, TrainingOptions, read_training_options
from benchmarks.training_table import training_lines
from embedded.services import clean_environ

_NO_TORCH = "torch is not installed: `make bench-training TORCH=1` puts it into build/torch"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, store, print; returns the exit code."""
    try:
        options = read_training_options(arguments)
        machine = describe_machine()
        torch = provide_torch() if options.torch else find_torch()
        rounds, sgemm = measure(options, torch)
        found = training_figures(rounds, sgemm, options)
        figures = {
            "settings": options.to_json(),
            "machine": machine,
            **found,
            "skipped": {} if torch else dict.fromkeys((arm for arm in options.arms if _needs_torch(arm)), _NO_TORCH),
            "wrong": unsound(rounds),
        }
        ours, goals = scaling_rows(rounds), training_goals(found)
        folder = options.folder
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / "training.json"]
        stored = {**figures, "goals": [goal.to_json() for goal in goals]}
        files[0].write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
        title = f"LSTM 50 on windows of 60 x 2: {machine['cores']} CPU cores here, M60 GPUs in 2021"
        files += draw(ours, folder, "training", title, original.training_rows(), "2021")
    except StockflowError as exc:
        print(f"benchmark: {exc}", file=sys.stderr)
        return exc.exit_code
    print(f"written: {', '.join(str(file) for file in files)}\n")
    for line in training_lines(figures, ours, goals):
        print(line)
    return WrongResult.exit_code if figures["wrong"] else 0


def measure(options: TrainingOptions, torch: str | None) -> tuple[dict[Key, list[Sample]], list[Sample]]:
    """Run everything that the options ask for: samples by arm and batch, and of one core's products.

    Every other round runs backwards, so that a machine that slows down or speeds up does it to all arms alike.
    """
    environ = clean_environ(os.environ)
    plan = [key for key in _plan(options) if torch or not _needs_torch(key[0])]
    rounds: dict[Key, list[Sample]] = {key: [] for key in plan}
    sgemm = []
    for turn in range(1, options.rounds + 1):
        sgemm.append(run_arm(SGEMM, 1, options, environ, torch))
        print(f"round {turn} sgemm: {sgemm[-1].gflops:.1f} GFLOP/s", flush=True)
        for arm, batch in plan if turn % 2 else reversed(plan):
            sample = run_arm(ARMS[arm], batch, options, environ, torch)
            rounds[arm, batch].append(sample)
            print(f"round {turn} {arm} batch {batch}: {sample.sequences_per_s:,.0f} sequences/s", flush=True)
    return rounds, sgemm


def _plan(options: TrainingOptions) -> Iterator[Key]:
    """The runs of one round. Strong scaling takes two ranks with half of each batch too."""
    seen: set[Key] = set()
    for batch in options.batches:
        halves = [("ours_2_ranks", batch // 2)] if "ours_2_ranks" in options.arms else []
        for key in (*((arm, batch) for arm in ARMS if arm in options.arms), *halves):
            if key not in seen:
                seen.add(key)
                yield key


def _needs_torch(arm: str) -> bool:
    return ARMS[arm].module == "training_torch"


if __name__ == "__main__":
    sys.exit(main())

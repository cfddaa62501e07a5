"""Phase III against the clock: `python -m benchmarks.serving`, or `make bench-serving` (docs/serving_benchmarks.md).

Our stream and the original's way to predict, block after block in turn, each in a process of its own, over the same
embedded S3. What came of it is printed and lies in build/bench/.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.errors import SettingsError, StockflowError
from app.options import counts
from app.scaling.plots import draw_serving
from benchmarks.machine import describe_machine
from benchmarks.servers import create_bucket, running_s3
from benchmarks.serving_figures import serving_goals, serving_lines, serving_row
from benchmarks.serving_stream import Block
from embedded.services import clean_environ

_TICKERS = "4,8,10,16,32,64,128,256,500,2000,10000"
_BLOCKS = 2
"""Of each arm in each row, in turn."""
_WARM = 4
"""Micro-batches of a block that are not counted: its query, and Java's compiler, have just begun."""
_MOST_BATCHES = 380
"""With the warm ones, about the minutes of a session."""
_ORIGINAL_MINUTES = 20
_ORIGINAL_CALLS = 1000
"""The original's arm stops after so many calls of its model in a block, but not before two minutes."""


@dataclass(frozen=True)
class ServingOptions:
    """What to measure. batches: that are counted in each row; most_original: tickers of the original's largest row."""

    tickers: tuple[int, ...]
    batches: int
    most_original: int
    settings: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path("build/bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, store, print; returns the exit code."""
    try:
        options = read_serving_options(arguments)
        machine = describe_machine()
        rows, first_s = measure(options)
        goals = serving_goals(rows)
        figures = {
            "settings": {**asdict(options), "folder": str(options.folder)},
            "machine": machine,
            "first_prediction_s": first_s,
            "rows": rows,
            "goals": [goal.to_json() for goal in goals],
        }
        options.folder.mkdir(parents=True, exist_ok=True)
        files = [options.folder / "serving.json"]
        files[0].write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        files += draw_serving(rows, options.folder)
    except StockflowError as exc:
        print(f"benchmark: {exc}", file=sys.stderr)
        return exc.exit_code
    print(f"written: {', '.join(str(file) for file in files)}\n")
    for line in serving_lines(figures, goals):
        print(line)
    return 0


def read_serving_options(arguments: Sequence[str] | None) -> ServingOptions:
    """The options of the command line; SettingsError for a wrong one."""
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description="Time the stream and the original's way.")
    parser.add_argument("--tickers", default=_TICKERS, help="numbers of tickers")
    parser.add_argument("--batches", type=int, default=20, help="micro-batches that are counted in each row")
    parser.add_argument("--most-original", type=int, default=500, help="tickers of the original's largest row")
    parser.add_argument("--settings", default="{}", help="JSON of serving settings")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    given = parser.parse_args(arguments)
    if not 1 <= given.batches <= _MOST_BATCHES:
        raise SettingsError(f"--batches must be from 1 to {_MOST_BATCHES}: a session has no more minutes")
    return ServingOptions(
        tickers=counts(given.tickers, "--tickers"),
        batches=given.batches,
        most_original=given.most_original,
        settings=json.loads(given.settings),
        folder=given.folder,
    )


def measure(options: ServingOptions) -> tuple[list[dict[str, Any]], float]:
    """A row for each number of tickers; and seconds from the start of our process to its first prediction."""
    environ = clean_environ(os.environ)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="stockflow-bench-"))
        url = stack.enter_context(running_s3(environ))
        for bucket in ("market", "models", "predictions"):
            create_bucket(url, bucket)
        variables = {**environ, "AWS_ENDPOINT_URL": url, "TF_CPP_MIN_LOG_LEVEL": "3"}
        original = stack.enter_context(_running("serving_original", variables))
        original.ask({})
        ours = stack.enter_context(_running("serving_stream", variables))
        rows, first_s = [], 0.0
        for tickers in options.tickers:
            timed, originals, rss_mib = [], [], 0.0
            counted = -(-options.batches // _BLOCKS)
            for number in range(_BLOCKS):
                minutes = _WARM + counted
                block = Block(f"b{tickers}", tickers, number * minutes, minutes, folder, options.settings)
                answer = ours.ask(asdict(block))
                first_s = first_s or answer["first_s"]
                timed += answer["timed"][_WARM:]
                rss_mib = answer["rss_mib"]
                if tickers <= options.most_original:
                    few = max(2, min(_ORIGINAL_MINUTES // _BLOCKS, _ORIGINAL_CALLS // tickers))
                    block = Block(f"o{tickers}", tickers, number * few, few, folder)
                    originals += original.ask(asdict(block))["micro_batch_s"]
            rows.append(serving_row(tickers, timed, originals, rss_mib))
            print(f"{tickers} tickers: {rows[-1]['micro_batch_s']:.3f} s a micro-batch", flush=True)
    return rows, first_s


class _Arm:
    """A process that answers lines of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, what: Mapping[str, Any]) -> Any:
        """Its answer; StockflowError when it has ended instead."""
        if self._process.stdin is None or self._process.stdout is None:
            raise TypeError("an arm without pipes")
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise StockflowError(f"an arm ended with status {self._process.wait()}: see above")


@contextmanager
def _running(module: str, environ: Mapping[str, str]) -> Iterator[_Arm]:
    with subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{module}"],
        env=dict(environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield _Arm(process)
        finally:
            process.terminate()


if __name__ == "__main__":
    sys.exit(main())

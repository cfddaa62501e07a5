"""The serving benchmark's figures and tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np

from benchmarks.table import goal_lines
from benchmarks.verdict import Goal

Row = Mapping[str, Any]
_NO_ROW: Final[Row] = dict.fromkeys(("micro_batch_s", "original_s", "end_to_end_p99_s"))
_SECONDS: Final = ("micro_batch_s", "micro_batch_p99_s", "scoring_s", "end_to_end_p50_s", "end_to_end_p99_s")


def serving_row(
    tickers: int, timed: Sequence[Mapping[str, float]], original: Sequence[float], rss_mib: float
) -> dict[str, Any]:
    """One row of the benchmark. timed: our micro-batches; original: seconds of the original's, none when left out."""
    of = {name: [one[name] for one in timed] for name in ("micro_batch_s", "scoring_s", "end_to_end_s")}
    return {
        "tickers": tickers,
        "batches": len(timed),
        "micro_batch_s": statistics.median(of["micro_batch_s"]),
        "micro_batch_p99_s": _p99(of["micro_batch_s"]),
        "scoring_s": statistics.median(of["scoring_s"]),
        "end_to_end_p50_s": statistics.median(of["end_to_end_s"]),
        "end_to_end_p99_s": _p99(of["end_to_end_s"]),
        "original_s": statistics.median(original) if original else None,
        "original_batches": len(original),
        "rss_mib": rss_mib,
        "us_per_ticker": 1e6 * statistics.median(of["micro_batch_s"]) / tickers,
    }


def serving_goals(rows: Sequence[Row]) -> list[Goal]:
    """The bars that the stream is held to."""
    by = {row["tickers"]: row for row in rows}
    at_500, at_10000 = by.get(500, _NO_ROW), by.get(10_000, _NO_ROW)
    original, ours = at_500["original_s"], at_500["micro_batch_s"]
    costs = [row["us_per_ticker"] for row in sorted(rows, key=lambda row: int(row["tickers"]))]
    falls = [later / earlier for earlier, later in pairwise(costs)]
    return [
        Goal("micro-batch, s", ours, 0.6, False, "500 tickers, median"),
        Goal(
            "original's way over ours",
            original / ours if original else None,
            30,
            True,
            "500 tickers",
        ),
        Goal("end to end, s", at_500["end_to_end_p99_s"], 2.0, False, "500 tickers, p99"),
        Goal("micro-batch, s", at_10000["micro_batch_s"], 1.3, False, "10,000 tickers, median"),
        Goal("cost of a ticker over that of the row before", max(falls, default=None), 1.0, False, "every row"),
    ]


def serving_lines(figures: Mapping[str, Any], goals: Sequence[Goal]) -> Iterator[str]:
    """All that the benchmark prints at its end."""
    heads = ("tickers", "micro-batch", "p99", "scoring", "end to end", "p99", "us a ticker", "original", "times", "MiB")
    yield "seconds, medians of warm micro-batches; " + ", ".join(f"{k} {v}" for k, v in figures["machine"].items())
    yield "".join(f"{head:>13}" for head in heads)
    for row in figures["rows"]:
        original = row["original_s"]
        values = [
            f"{row['tickers']:,}",
            *(f"{row[name]:.3f}" for name in _SECONDS),
            f"{row['us_per_ticker']:,.0f}",
            "-" if original is None else f"{original:.2f}",
            "-" if original is None else f"{original / row['micro_batch_s']:.1f}x",
            f"{row['rss_mib']:,.0f}",
        ]
        yield "".join(f"{value:>13}" for value in values)
    yield f"first prediction {figures['first_prediction_s']:.1f} s after the imports, Java's start included"
    yield ""
    yield from goal_lines(goals)


def _p99(values: Sequence[float]) -> float:
    return float(np.percentile(values, 99))

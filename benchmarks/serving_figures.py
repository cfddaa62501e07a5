"""The serving benchmark's figures, tables and pictures."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.scaling.plots import new_picture, save_picture
from benchmarks.table import goal_lines
from benchmarks.verdict import Goal

Row = Mapping[str, Any]
ORIGINAL_S: Final = {4: 0.18, 8: 0.33, 10: 0.53, 16: 0.76, 32: 1.46, 64: 2.78, 128: 5.55, 256: 10.99, 500: 21.64}
"""What the 2021 system measured: seconds of an update by its tickers."""
_NO_ROW: Final[Row] = dict.fromkeys(("micro_batch_s", "original_s", "end_to_end_p99_s"))
_SECONDS: Final = ("micro_batch_s", "micro_batch_p99_s", "scoring_s", "end_to_end_p50_s", "end_to_end_p99_s")
_OURS, _AGAIN, _THEN = "#1f6f54", "#7a8fa6", "#b8c4d0"


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


def draw_serving(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Seconds by tickers, and seconds for each ticker, of both systems, and of 2021; returns the files."""
    files = []
    for name, label, each in (("update", "seconds an update", False), ("ticker", "seconds a ticker", True)):
        picture, (axes,) = new_picture(4.6)
        for title, points, colour in (
            ("2021, on its cluster", ORIGINAL_S, _THEN),
            ("its way, here", {row["tickers"]: row["original_s"] for row in rows if row["original_s"]}, _AGAIN),
            ("ours", {row["tickers"]: row["micro_batch_s"] for row in rows}, _OURS),
        ):
            if points:
                seconds = [value / count if each else value for count, value in points.items()]
                axes.plot(list(points), seconds, marker="o", color=colour, label=title)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("tickers")
        axes.set_ylabel(label)
        axes.legend()
        files += save_picture(picture, folder / f"serving_{name}")
    return files


def _p99(values: Sequence[float]) -> float:
    return float(np.percentile(values, 99))

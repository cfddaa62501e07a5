"""The benchmark's two pictures, each as PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.scaling.plots import new_picture, save_picture
from benchmarks.table import ARM_NAMES

_PART, _WHOLE, _OURS, _LIMIT = "#b8c4d0", "#7a8fa6", "#1f6f54", "#c8a24a"
_COLOURS = {"naive_download": _PART, "original_download": _PART, "ours": _OURS, "ours_stored": _OURS, "floor": _LIMIT}


def draw_arms(figures: Mapping[str, Any], folder: Path) -> list[Path]:
    """Seconds of each arm that ran, on a logarithmic axis, with the range of its rounds; returns the files."""
    settings = figures["settings"]
    arms = [arm for arm in ARM_NAMES if figures.get(f"{arm}_s") is not None]
    spreads = [figures[f"{arm}_s"] for arm in arms]
    medians = [one["median"] for one in spreads]
    picture, (axes,) = new_picture(0.55 * len(arms) + 1.4)
    ranges = [
        [median - one["min"] for median, one in zip(medians, spreads, strict=True)],
        [one["max"] - median for median, one in zip(medians, spreads, strict=True)],
    ]
    places = range(len(arms))
    axes.barh(places, medians, xerr=ranges, color=[_COLOURS.get(arm, _WHOLE) for arm in arms], capsize=3)
    axes.set_yticks(places, [arm.replace("_", " ") for arm in arms])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(one["min"] for one in spreads) / 2, max(one["max"] for one in spreads) * 5)
    axes.xaxis.set_major_formatter("{x:g}")
    ours = figures["ours_s"]
    for place, one in zip(places, spreads, strict=True):
        times = f"  ({one['median'] / ours['median']:.2g} x ours)" if ours and one is not ours else ""
        axes.annotate(
            f"{one['median']:.3g} s{times}", (one["max"], place), (6, 0), textcoords="offset points", va="center"
        )
    axes.set_xlabel("seconds, median and range of the rounds")
    axes.set_title(
        f"{settings['tickers']} tickers x {settings['days']} sessions, {settings['latency_ms']:g} ms latency, "
        f"{figures['machine']['cores']} cores"
    )
    return save_picture(picture, folder / "ingest_arms")


def draw_scaling(figures: Mapping[str, Any], folder: Path) -> list[Path]:
    """Speed-up of the fetching over the number of worker processes, beside the ideal; returns the files."""
    scaling = figures["scaling"]
    counts = [int(count) for count in scaling["workers"]]
    picture, (axes,) = new_picture(4.2)
    axes.plot(counts, [count / counts[0] for count in counts], color=_PART, linestyle="--", label="ideal")
    speedups = [one["speedup"] / counts[0] for one in scaling["workers"].values()]
    axes.plot(counts, speedups, color=_OURS, marker="o", label="fetching")
    walls = [one["wall_s"]["median"] for one in scaling["workers"].values()]
    axes.plot(
        counts, [walls[0] / wall for wall in walls], color=_WHOLE, marker="s", label="all, with start-up and storing"
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_yticks(counts, [str(count) for count in counts])
    axes.set_xlabel("worker processes")
    axes.set_ylabel("speed-up")
    axes.legend()
    axes.set_title(
        f"strong scaling: {scaling['requests']} requests, {scaling['in_flight']} in flight in each worker, "
        f"{figures['machine']['cores']} cores"
    )
    return save_picture(picture, folder / "ingest_scaling")

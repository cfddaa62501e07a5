"""The figures of a report, as PNG files: the 2021 system's with ours over them, coverage and forecasts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.dates import DateFormatter

from app import contract
from app.report.read import BenchFiles, RunFiles, median_of, phases_of
from app.scaling.cases import Case, Row, read_times
from app.scaling.original import INGEST_HEADS, INGEST_S, row_at, training_rows
from app.scaling.plots import AGAIN, OURS, THEN, draw, draw_serving, new_picture, save_picture

_SESSION_MIN: Final = 390
_KINDS: Final = (".png",)
_MOST_NAMES = 50
_SPEEDUPS: Final = (1, 2, 5, 10, 20, 50, 100, 200)
_SHADES: Final = LinearSegmentedColormap.from_list("coverage", [(0, "#b03a48"), (0.85, "#f2d9a0"), (1, "#1f6f54")])


def draw_ingest(run: RunFiles, bench: BenchFiles, folder: Path) -> list[Path]:
    """Wall times of the ingest, and speed-ups over one ticker after another, by processes."""
    lines, over = _ingest_lines(run, bench), "speed-up over one ticker after another"
    return [
        *_draw_processes(folder / "ingest_wall", "seconds, all of the ingest", lines, speedups=False),
        *_draw_processes(folder / "ingest_speedup", over, lines, speedups=True),
    ]


def draw_training(run: RunFiles, bench: BenchFiles, folder: Path) -> list[Path]:
    """Speed-up, time per step and time per epoch, by ranks and by effective batch."""
    title = "training, an epoch of as many sequences as 2021's"
    return draw(_training_points(run, bench), folder, "training", title, training_rows(), "2021", kinds=_KINDS)


def draw_prediction(bench: BenchFiles, folder: Path) -> list[Path]:
    """Seconds of an update, and of each ticker in it, by tickers."""
    return draw_serving(bench.serving.get("rows", ()), folder, kinds=_KINDS)


def draw_coverage(run: RunFiles, folder: Path) -> list[Path]:
    """A heat map of the share of each session's minutes that each ticker has."""
    days: Sequence[str] = run.coverage["days"]
    tickers: Sequence[Mapping[str, Any]] = run.coverage["tickers"]
    shares = np.array([[share_of(ticker, day, run.minutes) for day in days] for ticker in tickers])
    picture, (axes,) = new_picture(min(9.0, 1.4 + 0.17 * len(tickers)))
    image = axes.imshow(shares, aspect="auto", cmap=_SHADES, vmin=0, vmax=1, interpolation="nearest")
    step = -(-len(tickers) // _MOST_NAMES)
    axes.set_yticks(range(0, len(tickers), step), [_plain(one["ticker"]) for one in tickers[::step]], fontsize=7)
    axes.set_xticks(range(len(days)), days, rotation=90 if len(days) > 7 else 0, fontsize=8)
    axes.spines[:].set_visible(False)
    picture.colorbar(image, ax=axes, label="share of the session's minutes", format="{x:.0%}")
    return save_picture(picture, folder / "coverage", _KINDS)


def draw_forecasts(examples: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path) -> list[Path]:
    """For each ticker the forecasts of a session with their 10 to 90 % band, at the minute they are for."""
    files = []
    for number, (ticker, rows) in enumerate(examples.items(), 1):
        picture, (axes,) = new_picture(3.4)
        at = np.array([row["as_of"].timestamp() + 60 * row["horizon_min"] for row in rows])
        times = at.astype("datetime64[s]")
        low, high, middle = (np.array([row[n] for row in rows]) for n in ("price_p10", "price_p90", "predicted_price"))
        actual = np.array([np.nan if row["actual_price"] is None else row["actual_price"] for row in rows])
        axes.fill_between(times, low, high, color=OURS, alpha=0.18, linewidth=0, label="10 to 90 %")
        axes.plot(times, middle, color=OURS, linewidth=1.1, label=f"forecast {rows[0]['horizon_min']} min before")
        axes.plot(times, actual, color="#222222", linewidth=0.9, label="what happened")
        axes.xaxis.set_major_formatter(_clock())
        axes.set_ylabel("USD")
        axes.set_title(f"{_plain(ticker)}, {rows[0]['dt']}, New York time", fontsize=10)
        axes.legend(fontsize=8, frameon=False, ncols=3, loc="best")
        files += save_picture(picture, folder / f"forecast_{number}", _KINDS)
    return files


def _clock() -> Any:
    """Hours and minutes in New York."""
    make: Any = DateFormatter  # matplotlib leaves it untyped
    return make("%H:%M", tz=contract.EXCHANGE_TIMEZONE)


def share_of(ticker: Mapping[str, Any], day: str, minutes: Mapping[str, int]) -> float:
    """Of a session's minutes, the share with a bar. missing: counted by the ingest, for days that lack any."""
    if ticker["status"] in ("delisted", "failed") and not ticker["rows"]:
        return 0.0
    return max(0.0, 1 - int(ticker["missing"].get(day, 0)) / minutes.get(day, _SESSION_MIN))


@dataclass(frozen=True)
class _Line:
    """Seconds by INGEST_HEADS. first: what they are a speed-up over; none where nobody timed that."""

    name: str
    seconds: Mapping[str, float]
    first: float | None
    colour: str = OURS
    mark: str = "D"


def _ingest_lines(run: RunFiles, bench: BenchFiles) -> list[_Line]:
    then = [
        _Line(f"2021: {name}", dict(zip(INGEST_HEADS, seconds, strict=True)), seconds[0], THEN, mark)
        for (name, seconds), mark in zip(INGEST_S, ("o", "s", "^"), strict=True)
    ]
    return [*then, *(_bench_lines(bench.ingest) if bench.ingest else _run_line(run))]


def _bench_lines(found: Mapping[str, Any]) -> list[_Line]:
    """2021's ways as they are here and ours; ours by workers too, over one of them, where that was timed."""
    settings, naive = found["settings"], median_of(found.get("naive_s"))
    size = f"{settings['tickers']} tickers x {settings['days']} sessions, {settings['latency_ms']:g} ms a call"
    again = {"sequential": naive, _head(int(found["machine"]["cores"])): median_of(found.get("original_s"))}
    scaling = (found.get("scaling") or {}).get("workers", {})
    workers = {_head(int(count)): one["wall_s"]["median"] for count, one in scaling.items()}
    lines = [
        _Line(f"its ways, here: {size}", _known(again), naive, AGAIN),
        _Line(f"ours: {size}", _known({"1 process": median_of(found.get("ours_s"))}), naive),
        _Line("ours by workers, with their start, over one", _known(workers), workers.get("1 process"), mark="v"),
    ]
    return [line for line in lines if line.seconds]


def _run_line(run: RunFiles) -> list[_Line]:
    phase = phases_of(run.summary).get("ingest", {})
    if phase.get("status") != "succeeded":
        return []
    ingest, days = run.summary["settings"]["ingest"], run.summary["days"]
    processes = _head(min(int(ingest["shards"]), int(ingest["processes"])))
    size = f"{run.summary['tickers_requested']} tickers x {len(days)} sessions"
    return [_Line(f"this run: {size}", _known({processes: phase["wall_s"]}), None)]


def _head(processes: int) -> str:
    return "1 process" if processes == 1 else str(processes)


def _known(points: Mapping[str, float | None]) -> dict[str, float]:
    """What was timed, at one of the numbers of processes that 2021's figures have."""
    return {head: seconds for head, seconds in points.items() if seconds and head in INGEST_HEADS}


def _draw_processes(stem: Path, label: str, lines: Sequence[_Line], *, speedups: bool) -> list[Path]:
    picture, (axes,) = new_picture(4.6)
    for line in lines:
        if line.first or not speedups:
            values = [(line.first or 0) / one if speedups else one for one in line.seconds.values()]
            places = [INGEST_HEADS.index(head) for head in line.seconds]
            axes.plot(places, values, color=line.colour, marker=line.mark, label=line.name)
    axes.set_xticks(range(len(INGEST_HEADS)), INGEST_HEADS)
    axes.set_yscale("log")
    if speedups:
        axes.set_yticks(_SPEEDUPS)
        axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("processes")
    axes.set_ylabel(label)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    return save_picture(picture, stem, _KINDS)


def _training_points(run: RunFiles, bench: BenchFiles) -> list[Row]:
    timed = bench.training.get("rows", ())
    found = [
        row_at(Case(1, int(row["ranks"]), int(row["batch"])), float(row["sequences_per_s"]["median"]))
        for row in timed
        if row["arm"] in ("ours_1_rank", "ours_2_ranks")
    ]
    if found or not run.metrics.get("history"):
        return found
    case = Case(1, int(run.metrics["ranks"]), int(run.metrics["batch"]))
    return [row_at(case, read_times(run.metrics).sequences_per_s)]


def _plain(text: Any) -> str:
    """A name as matplotlib shows it: no formula, and nothing that is no letter of a ticker."""
    return re.sub(r"[^\w.^=-]", "?", str(text))[:20]

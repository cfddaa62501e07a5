"""The pictures of the 2021 system: of training by ranks and by effective batch, and of predictions by tickers.

Each is written as PNG and, unless it is not asked for, as SVG. Imported only where matplotlib is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from app.scaling.cases import Row, speedup, whole_speedup
from app.scaling.original import PREDICTION_S

_COLOURS = ("#1f6f54", "#c8722a", "#3b6ea5", "#8a4f9e", "#b03a48", "#6b7b2c", "#2f8f9d", "#7a5c3e")
_GREY = "#9aa7b4"
OURS, AGAIN, THEN = "#1f6f54", "#7a8fa6", "#b8c4d0"
"""This system, the 2021 system's way on this machine, and what it measured then."""
KINDS = (".png", ".svg")
_MOST_TICKS = 8
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")

Value = Callable[[Row], float | None]
Series = Mapping[str, Sequence[Row]]


def draw(
    rows: Sequence[Row],
    folder: Path,
    stem: str,
    title: str,
    reference: Sequence[Row] = (),
    name: str = "",
    kinds: Sequence[str] = KINDS,
) -> list[Path]:
    """Write `<stem>_speedup`, `<stem>_s_per_step` and `<stem>_s_per_epoch`; returns the files.

    reference: rows of another system, called `name`, in grey.
    """
    return [
        *_draw(
            *(rows, reference, name, folder / f"{stem}_speedup", title, kinds),
            "speed-up",
            lambda own: lambda row: speedup(row, own),
            lambda own: lambda row: whole_speedup(row, own),
        ),
        *(
            file
            for field, label in {"s_per_step": "seconds per step", "s_per_epoch": "seconds per epoch"}.items()
            for file in _draw(
                *(rows, reference, name, folder / f"{stem}_{field}", title, kinds),
                *(label, _field(field), _field(field)),
            )
        ),
    ]


def draw_serving(rows: Sequence[Mapping[str, Any]], folder: Path, kinds: Sequence[str] = KINDS) -> list[Path]:
    """Seconds by tickers, and seconds for each ticker, of both systems, and of 2021; returns the files."""
    files = []
    for name, label, each in (("update", "seconds an update", False), ("ticker", "seconds a ticker", True)):
        picture, (axes,) = new_picture(4.6)
        for title, points, colour in (
            ("2021, on its cluster", PREDICTION_S, THEN),
            ("its way, here", {row["tickers"]: row["original_s"] for row in rows if row["original_s"]}, AGAIN),
            ("ours", {row["tickers"]: row["micro_batch_s"] for row in rows}, OURS),
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
        files += save_picture(picture, folder / f"serving_{name}", kinds)
    return files


def _field(name: str) -> Callable[[Sequence[Row]], Value]:
    return lambda own: lambda row: getattr(row.times, name) if row.times else None


def _draw(
    rows: Sequence[Row],
    reference: Sequence[Row],
    name: str,
    stem: Path,
    title: str,
    kinds: Sequence[str],
    label: str,
    by_ranks: Callable[[Sequence[Row]], Value],
    by_batch: Callable[[Sequence[Row]], Value],
) -> list[Path]:
    picture, (left, right) = new_picture(6, panels=2)
    for own, prefix in ((reference, f"{name}: "), (rows, "")):
        grey = own is reference
        _plot(left, _by_batch_of_a_rank(own), lambda row: row.case.ranks, by_ranks(own), prefix, grey=grey)
        _plot(right, _by_shape(own), lambda row: row.case.effective_batch, by_batch(own), prefix, grey=grey)
    if label == "speed-up":
        ranks = sorted({row.case.ranks for row in (*rows, *reference)})
        left.plot(ranks, ranks, color=_GREY, linestyle=":", label="ideal", zorder=1)
        left.set_ylabel("speed-up over 1 x 1 with the same batch a rank")
        right.set_ylabel("speed-up over 1 x 1 with the smallest batch")
    else:
        left.set_ylabel(label)
        right.set_ylabel(label)
    left.set_xlabel("ranks")
    right.set_xlabel("effective batch: windows in one step of all ranks")
    _ticks(left, [row.case.ranks for row in (*rows, *reference)], logarithmic=False)
    _ticks(right, [row.case.effective_batch for row in (*rows, *reference)], logarithmic=True)
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    picture.suptitle(title, fontsize=11)
    return save_picture(picture, stem, kinds)


def _by_batch_of_a_rank(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Series over ranks: one for each batch a rank and ranks of a node; each begins with one rank, where that is known.

    One rank alone is a series where nothing else has its batch.
    """
    found: dict[tuple[int, int], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.case.ranks):
        if row.case.ranks > 1:
            found.setdefault((row.case.gpus, row.case.batch), []).append(row)
    for row in rows:
        if row.case.ranks == 1:
            own = [series for (_, batch), series in found.items() if batch == row.case.batch]
            for series in own or [found.setdefault((1, row.case.batch), [])]:
                series.insert(0, row)
    several = len({gpus for gpus, _ in found}) > 1
    return {
        f"batch {batch} a rank" + (f", {gpus} rank{'s' * (gpus > 1)} a node" if several else ""): found[gpus, batch]
        for gpus, batch in sorted(found)
    }


def _by_shape(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Series over the effective batch: one for each nodes x GPUs."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.case.ranks, row.case.nodes, row.case.batch)):
        found.setdefault(f"{row.case.nodes} x {row.case.gpus} ranks", []).append(row)
    return found


def _plot(axes: Axes, series: Series, at: Callable[[Row], int], value: Value, prefix: str, *, grey: bool) -> None:
    for number, (label, own) in enumerate(series.items()):
        points = [(at(row), found) for row in own if (found := value(row)) is not None]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                color=_GREY if grey else _COLOURS[number % len(_COLOURS)],
                linestyle="--" if grey else "-",
                marker=_MARKS[number % len(_MARKS)],
                markersize=4 if grey else 5,
                linewidth=1 if grey else 1.6,
                label=f"{prefix}{label}",
            )


def _ticks(axes: Axes, values: Iterable[int], *, logarithmic: bool) -> None:
    found = sorted(set(values))
    if logarithmic:
        axes.set_xscale("log", base=2)
        found = [value for value in found if len(found) <= _MOST_TICKS or value.bit_count() == 1]
        axes.minorticks_off()
    axes.set_xticks(found, [str(value) for value in found], fontsize=8)


def new_picture(height_in: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty picture, with panels side by side."""
    mpl.use("Agg")
    picture = Figure(figsize=(9 if panels == 1 else 12, height_in), layout="constrained")
    found = [picture.add_subplot(1, panels, number + 1) for number in range(panels)]
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
    return picture, found


def save_picture(picture: Figure, stem: Path, kinds: Sequence[str] = KINDS) -> list[Path]:
    """Write it in each of these formats; returns the files."""
    files = [stem.with_suffix(kind) for kind in kinds]
    for file in files:
        picture.savefig(file, dpi=150)
    return files

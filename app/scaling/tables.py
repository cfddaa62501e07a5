"""A sweep as JSON and as a table in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.scaling.cases import Row, efficiency, speedup, to_json

_HEADS = (
    *("nodes x GPUs", "batch a rank", "effective batch", "s/epoch", "s/step", "sequences/s", "speed-up", "efficiency"),
    *("waiting s", "start-up s", "training s", "rest s", "toolkit's sleep s", "note"),
)
_NOTES = (
    "Speed-up: s/epoch of 1 x 1 with the same batch a rank over s/epoch; efficiency: the same for each rank.",
    "s/epoch is the median of the epochs after the first, steps alone. Apart from it: waiting for machines, image and"
    " data; start-up until the first step is done, compilation included; the rest, such as validation and export; the"
    " sleep of SageMaker's toolkit, which is billed.",
)


def write_tables(rows: Sequence[Row], facts: Mapping[str, Any], folder: Path, stem: str) -> list[Path]:
    """Write the rows as `<stem>.json`, with `facts` beside them, and as `<stem>.md`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{stem}.json", folder / f"{stem}.md"]
    stored = {**facts, "rows": [to_json(row, rows) for row in rows]}
    files[0].write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    files[1].write_text("\n".join(table_lines(rows)) + "\n", encoding="utf-8")
    return files


def table_lines(rows: Sequence[Row]) -> Iterator[str]:
    """The table in Markdown, a line for each case, and what its columns mean."""
    yield f"| {' | '.join(_HEADS)} |"
    yield "|---" * len(_HEADS) + "|"
    for row in rows:
        yield f"| {' | '.join(_cells(row, rows))} |"
    yield ""
    yield from _NOTES


def _cells(row: Row, rows: Sequence[Row]) -> Iterator[str]:
    case, times = row.case, row.times
    yield from (f"{case.nodes} x {case.gpus}", f"{case.batch}", f"{case.effective_batch}")
    yield _text(times.s_per_epoch if times else None, "{:.2f}")
    yield _text(times.s_per_step if times else None, "{:.4f}")
    yield _text(times.sequences_per_s if times else None, "{:,.0f}")
    yield _text(speedup(row, rows), "{:.2f}")
    yield _text(efficiency(row, rows), "{:.0%}")
    for seconds in (
        (times.waited_s, times.startup_s, times.train_s, times.rest_s, times.sleep_s) if times else [None] * 5
    ):
        yield _text(seconds, "{:.1f}")
    yield "; ".join(filter(None, (row.error and f"FAILED: {row.error}", row.note))).replace("|", "/")


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)

"""What the reading commands print: tables for people, one JSON object a line for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from itertools import chain
from typing import Any, Final

import click

Row = Mapping[str, Any]

_MINUTE: Final = 16
"""Characters of an ISO instant down to its minute."""
_WIDE: Final = 200
"""Columns where nobody looks: a pipe or a file cuts nothing off."""
_FEW_SESSIONS: Final = 5
PREDICTION_COLUMNS: Final = {
    "ticker": 8, "as of (UTC)": 16, "min ahead": 9, "last USD": 12, "predicted USD": 13, "move bp": 8,
    "p10 to p90 USD": 24,
}  # fmt: skip
"""And their widths where rows come one by one."""


def print_json(rows: Iterable[Row]) -> None:
    """One object a line, times in ISO 8601, null for what is not known."""
    for row in rows:
        click.echo(json.dumps(row, default=_iso, allow_nan=False))


def show_predictions(rows: Sequence[Row], title: str) -> None:
    """A table of predictions."""
    _show(title, list(PREDICTION_COLUMNS), [_prediction(row) for row in rows])


def print_predictions(rows: Iterable[Row]) -> None:
    """Predictions that come one by one, each in a line, below a line of what its columns are."""
    widths = PREDICTION_COLUMNS.values()
    for cells in chain([list(PREDICTION_COLUMNS)], map(_prediction, rows)):
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip())


def show_accuracy(rows: Sequence[Row], groups: Sequence[str], title: str) -> None:
    """A table of what `app.consumer.accuracy` found, and what it is worth."""
    heads = {"dt": "session", "model_id": "model", "horizon_min": "min ahead"}
    columns = ["predictions", "error USD", "no change", "skill", "direction", "in p10 to p90"]
    cells = [
        [
            *(str(row[name]) for name in groups),
            f"{row['predictions']:,}",
            f"{row['mae_usd']:.5f}",
            f"{row['mae_persistence_usd']:.5f}",
            _number(row["skill"], "+.4f"),
            _number(row["direction"], ".3f"),
            _number(row["coverage"], ".1%"),
        ]
        for row in rows
    ]
    _show(title, [*(heads.get(name, name) for name in groups), *columns], cells)
    sessions = max(row["sessions"] for row in rows)
    click.echo(
        'skill: 1 - MSE / MSE of "no change"; below 0 the forecast is worse than none. In p10 to p90: 80% is right.'
    )
    if sessions < _FEW_SESSIONS:
        click.echo(
            f"{sessions} session{'s' * (sessions > 1)} can say little: the minutes of a day are not independent"
            " (docs/model.md)."
        )


def show_models(rows: Sequence[Row], title: str) -> None:
    """A table of models."""
    columns = ["model", "state", "trained (UTC)", "skill", "test skill", "why"]
    cells = [
        [
            row["model_id"],
            row["state"],
            _minute(row["trained_at"]),
            _number(row["skill"], "+.4f"),
            _number(row["test_skill"], "+.4f") + _doubt(row["horizons"].values()),
            row["reason"] or "",
        ]
        for row in rows
    ]
    _show(title, columns, cells)


def show_runs(rows: Sequence[Row], title: str) -> None:
    """A table of runs."""
    columns = [
        "run",
        "started (UTC)",
        "tickers x sessions",
        "with bars",
        "phases (s)",
        "model",
        "predictions",
        "stream",
    ]
    cells = [
        [
            row["run_id"],
            _minute(row["started_at"]),
            f"{row['tickers']} x {row['sessions']}" if row["tickers"] else "",
            _number(row["coverage"], ".1%"),
            ", ".join(f"{name} {told['wall_s']:.0f}" for name, told in row["phases"].items()),
            {None: "", True: "promoted", False: "refused"}[row["promoted"]],
            _number(row["predictions"], ","),
            row["stream"] or "",
        ]
        for row in rows
    ]
    _show(title, columns, cells)


def note(text: str) -> None:
    """Say something beside the rows, on standard error."""
    click.echo(text, err=True)


def _prediction(row: Row) -> list[str]:
    return [
        row["ticker"],
        _minute(row["as_of"]),
        str(row["horizon_min"]),
        f"{row['last_price']:.4f}",
        f"{row['predicted_price']:.4f}",
        f"{row['predicted_return'] * 1e4:+.2f}",
        f"{row['price_p10']:.4f} to {row['price_p90']:.4f}",
    ]


def _show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, title=Text(title))
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE).print(table)


def _doubt(horizons: Iterable[Row]) -> str:
    told = [horizon["significant"] for horizon in horizons]
    return "" if all(told) else ", not significant" if not any(told) else ", in part significant"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _minute(when: datetime | str | None) -> str:
    return "" if when is None else str(_iso(when) if isinstance(when, datetime) else when)[:_MINUTE].replace("T", " ")


def _iso(value: date) -> str:
    """Dates and instants as `latest.json` has them."""
    return value.isoformat()

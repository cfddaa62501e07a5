"""The command of the report, and the report that `stockflow run` leaves. app.report is imported when one is written."""

from __future__ import annotations

import os
from pathlib import Path

import click

from app.cli_sources import RUN
from app.cli_tables import note

_PATH = click.Path(path_type=Path)
BENCH = Path("build/bench")
"""Where `make bench-*` leave their figures."""


@click.command()
@click.option("--from", "folder", type=_PATH, default=RUN, show_default=True, help="Folder of a run.")
@click.option("--out", type=_PATH, help="The file to write; by default report.html in that folder.")
@click.option("--bench", type=_PATH, default=BENCH, show_default=True, help="Folder of what `make bench-*` measured.")
def report(folder: Path, out: Path | None, bench: Path) -> None:
    """Write a run's report: one HTML file that needs nothing else, and its figures as PNG files.

    Phases, the 2021 system's plots with ours over them, coverage, the model's card, forecasts and what happened,
    settings, versions and what the same run costs on AWS. `stockflow run` writes it at its end.

    \b
    Examples:
      stockflow report
      stockflow report --from build/run --out report.html
    """
    click.echo(f"report: {_write(folder, out, bench)}")


def leave_report(folder: Path) -> None:
    """Write the report of a run that has ended. That it cannot be written is said, and is no failure of the run."""
    try:
        click.echo(f"report: {_write(folder, None, BENCH)}")
    except Exception as exc:  # whatever a library raises: the run's results are there
        note(f"no report: {' '.join(str(exc).split()) or type(exc).__name__}")


def _write(folder: Path, out: Path | None, bench: Path) -> Path:
    from app.clock import system_clock
    from app.errors import StockflowError

    try:
        from app.report.page import write_report
        from embedded.summary import REPORT
    except ModuleNotFoundError as exc:
        raise StockflowError(f"{exc.name} is not installed: type `make setup`") from exc
    return write_report(folder, out or folder / REPORT, bench, os.environ, system_clock())

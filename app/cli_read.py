"""The commands that read what the phases left: predictions, how good they were, models and runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import date
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli_sources import Sources, find_sources
from app.cli_tables import (
    note,
    print_json,
    print_predictions,
    show_accuracy,
    show_models,
    show_predictions,
    show_runs,
)
from app.options import words

if TYPE_CHECKING:
    from app.storage import Bucket

_ROWS = 40
"""Shown where nobody says how many."""
_GROUPS = {"day": "dt", "ticker": "ticker", "model": "model_id"}

_from_option = click.option(
    "--from",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder of a run or of a stack that is up. By default the buckets that STOCKFLOW_*_BUCKET name; without"
    " them the stack in build/up; without one the last run, in build/run.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of a table.")
_limit_option = click.option("--limit", type=click.IntRange(min=1), help="How many rows at most.")
_which_options = (
    click.option("--ticker", "tickers", multiple=True, metavar="TICKER", help="Only this one; may be repeated."),
    click.option("--start", metavar="TIME", help="From this New York session, 2026-03-24, or instant on (UTC)."),
    click.option("--end", metavar="TIME", help="To this session or instant, included."),
    click.option("--horizon", "horizons", type=int, multiple=True, metavar="MINUTES", help="Only so far ahead."),
    click.option("--run-id", help="Only of this run; otherwise of several predictions of the same the newest counts."),
)


def _which(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_which_options):
        command = option(command)
    return command


@click.command()
@_which
@click.option("--follow", is_flag=True, help="Print those that come from now on, or from --start on, until Ctrl-C.")
@click.option(
    "--limit", type=click.IntRange(min=1), help=f"How many at most, of a period the last; {_ROWS} in a table, or all."
)
@_json_option
@_from_option
def predictions(
    start: str | None,
    end: str | None,
    follow: bool,
    limit: int | None,
    as_json: bool,
    folder: Path | None,
    **which: Any,
) -> None:
    """Show predictions: the newest of each ticker, or all of a period.

    \b
    Examples:
      stockflow predictions --ticker SIM001
      stockflow predictions --start 2026-03-24 --horizon 5 --limit 100
      stockflow predictions --follow --json
    """
    from app import consumer

    if follow and end is not None:
        raise click.UsageError("--follow has no --end")
    sources, asked = find_sources(folder, os.environ), _asked(which)
    bucket = sources.bucket("predictions")
    if follow:
        frames = consumer.follow(start=start, frame="arrow", bucket=bucket, **asked)
        note(f"waiting for predictions in {sources.place}: Ctrl-C ends")
        rows = (row for table in frames for row in table.to_pylist())
        (print_json if as_json else print_predictions)(islice(rows, limit))
        return
    if start or end or asked["run_id"]:
        first, last = _period(start, end, asked["run_id"], bucket)
        found = consumer.predictions(first, last, frame="arrow", bucket=bucket, **asked)
        what = f"predictions {_in_words(first, last)}"
    else:
        del asked["run_id"]
        found, what = consumer.latest(frame="arrow", bucket=bucket, **asked), "newest predictions"
    most = limit or (len(found) if as_json else _ROWS)
    shown = (found[:most] if what.startswith("newest") else found[max(0, len(found) - most) :]).to_pylist()
    if not shown:
        _say_what_there_is(sources, "no such prediction")
    elif as_json:
        print_json(shown)
    else:
        show_predictions(shown, f"{what}: {sources.place}")
        if left := len(found) - len(shown):
            note(f"{left:,} more are not shown: --limit {len(found)} does")


@click.command()
@_which
@click.option("--by", type=click.Choice([*_GROUPS]), multiple=True, help="A row for each; may be repeated.")
@_json_option
@_from_option
def accuracy(
    start: str | None, end: str | None, by: tuple[str, ...], as_json: bool, folder: Path | None, **which: Any
) -> None:
    """Compare predictions with what happened, and with the forecast that the price stays.

    Of the last session with predictions, unless --start says otherwise, and of each horizon.

    \b
    Examples:
      stockflow accuracy
      stockflow accuracy --start 2026-03-02 --end 2026-03-24 --by day
      stockflow accuracy --by ticker --horizon 5 --json
    """
    from app import consumer

    sources, asked = find_sources(folder, os.environ), _asked(which)
    bucket = sources.bucket("predictions")
    groups = [*dict.fromkeys(_GROUPS[name] for name in by), "horizon_min"]
    first, last = _period(start, end, asked["run_id"], bucket)
    rows = consumer.accuracy(first, last, by=groups, frame="arrow", bucket=bucket, **asked).to_pylist()
    if not rows:
        _say_what_there_is(sources, "no such prediction of which it is known what happened")
    elif as_json:
        print_json(rows)
    else:
        show_accuracy(rows, groups, f"predictions and what happened {_in_words(first, last)}: {sources.place}")


@click.command()
@_limit_option
@_json_option
@_from_option
def models(limit: int | None, as_json: bool, folder: Path | None) -> None:
    """List the models: when they were trained, how good they are, whether they were promoted, and why.

    \b
    Examples:
      stockflow models
      stockflow models --json | head -1
    """
    from app.consumer.history import models as read_models

    sources = find_sources(folder, os.environ)
    found = read_models(sources.bucket("model"))[:limit]
    if not found:
        note(f"there is no model in {sources.place}: {sources.to_fill}")
    elif as_json:
        print_json(found)
    else:
        show_models(found, f"models: {sources.place}")


@click.command()
@_limit_option
@_json_option
@_from_option
def runs(limit: int | None, as_json: bool, folder: Path | None) -> None:
    """List the runs: what was planned, which phases ended and when, coverage and predictions.

    \b
    Examples:
      stockflow runs
      stockflow runs --limit 5 --json
    """
    from app.consumer.history import runs as read_runs

    sources = find_sources(folder, os.environ)
    found = read_runs(sources.bucket("market"), sources.bucket("model"))[:limit]
    if not found:
        note(f"there is no run in {sources.place}: {sources.to_fill}")
    elif as_json:
        print_json(found)
    else:
        show_runs(found, f"runs: {sources.place}")


def _asked(which: Mapping[str, Any]) -> dict[str, Any]:
    """The options of _which_options as the arguments of app.consumer."""
    return {
        "tickers": [ticker for text in which["tickers"] for ticker in words(text)] or None,
        "horizons_min": which["horizons"] or None,
        "run_id": which["run_id"],
    }


def _period(start: str | None, end: str | None, run_id: str | None, bucket: Bucket) -> tuple[str | date, str | date]:
    """From when to when: without either of them the last session that there is, without an end all since the start."""
    from app.consumer import sessions

    if start is not None:
        return start, end or date.max
    if end is not None:
        raise click.UsageError("--end needs a --start")
    last = max(sessions(run_id=run_id, bucket=bucket), default=date.min)
    return last, last


def _in_words(first: str | date, last: str | date) -> str:
    return f"of {first}" if first == last else f"from {first} on" if last == date.max else f"from {first} to {last}"


def _say_what_there_is(sources: Sources, lacking: str) -> None:
    """Instead of what was asked for; or what makes predictions, where there are none."""
    from app.consumer import latest, sessions

    bucket = sources.bucket("predictions")
    days = sessions(bucket=bucket)
    if not days:
        note(f"there are no predictions in {sources.place} yet: {sources.to_fill}")
        return
    newest = latest(columns=["ticker", "horizon_min"], frame="arrow", bucket=bucket)
    tickers, horizons = ({*newest[name].to_pylist()} for name in newest.column_names)
    note(
        f"there is {lacking} in {sources.place}: the sessions are {days[0]} to {days[-1]}, the {len(tickers)} tickers"
        f" {min(tickers)} to {max(tickers)}, the horizons {', '.join(map(str, sorted(horizons)))} min"
    )


READ_COMMANDS = (predictions, accuracy, models, runs)

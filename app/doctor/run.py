"""`stockflow doctor`: all checks, told as they end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.doctor.check import Result, examine
from app.doctor.machine import machine_checks
from app.errors import UnfitMachine

_COLOURS = {"ok": "green", "warning": "yellow", "failure": "red"}
_PLAIN_WIDTH = 160
_NAME_WIDTH = 16


def examine_machine(environ: Mapping[str, str], *, aws: bool, as_json: bool) -> None:
    """Make all checks and tell them: a table for people, one JSON object for programs; UnfitMachine when one fails."""
    stages = _stages(environ, aws)
    results = list(stages) if as_json else list(_shown(stages))
    if as_json:
        print(json.dumps(_to_json(results), indent=1), flush=True)
    if failed := [result.name for result in results if result.finding.status == "failure"]:
        raise UnfitMachine(
            f"{len(failed)} of {len(results)} checks failed ({', '.join(failed)}): what to do stands with each"
        )


def _stages(environ: Mapping[str, str], aws: bool) -> Iterator[Result]:
    if not aws:
        return examine(machine_checks(environ))
    return chain(examine(machine_checks(environ)), _of_account(environ))


def _of_account(environ: Mapping[str, str]) -> Iterator[Result]:
    """Who asks, first; then what the account has, if that can be asked."""
    from app.doctor.account import account_checks, connection, context_checks  # noqa: PLC0415  boto3 only when asked

    connect, known = connection(environ), True
    for result in examine(context_checks(environ, connect)):
        known = known and result.finding.status != "failure"
        yield result
    if known:
        yield from examine(account_checks(connect))


def _shown(results: Iterable[Result]) -> Iterator[Result]:
    """Print each result as a row of a table as it comes: the slow ones would hold up a whole one."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    with console.status("checking; Horovod's ranks take up to a minute"):
        for result in results:
            console.print(row(result))
            yield result


def row(result: Result) -> Table:
    """A result as a table of one row, or of two where there is something to do."""
    table, finding = Table.grid(padding=(0, 2)), result.finding
    for width in (max(map(len, _COLOURS)), _NAME_WIDTH):
        table.add_column(width=width)
    table.add_column(overflow="fold")
    table.add_row(Text(finding.status, _COLOURS[finding.status]), Text(result.name), Text(finding.found))
    if finding.todo:
        table.add_row("", "", Text(f"-> {finding.todo}", "bold"))
    return table


def _to_json(results: Iterable[Result]) -> dict[str, object]:
    checks = [
        {
            "name": result.name,
            "status": result.finding.status,
            "found": result.finding.found,
            "todo": result.finding.todo,
            "seconds": round(result.seconds, 2),
        }
        for result in results
    ]
    worst = max((str(check["status"]) for check in checks), key=list(_COLOURS).index)
    return {"status": worst, "checks": checks}

"""What an operator does with a stack that is up: start, look, read, stop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import click
from rich.console import Console
from rich.table import Table

from app import contract
from app.errors import SettingsError
from app.processes import OUR_MESSAGE
from embedded.execution import Execution, read_execution
from embedded.fates import coverage_lines, coverage_run
from embedded.local import Local
from embedded.phase_logs import PhaseLogs, readable
from embedded.reasons import explain
from embedded.screen import Screen
from embedded.watch import begin, follow, stop

_EVERY_S = 1.0
_LISTED = 10
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _asks(command: Callable[Concatenate[Local, _P], _R]) -> Callable[Concatenate[Local, _P], _R]:
    """What the embedded AWS refuses, or that it is gone, is said in one line."""

    @wraps(command)
    def asked(local: Local, /, *args: _P.args, **named: _P.kwargs) -> _R:
        with local.answering():
            return command(local, *args, **named)

    return asked


@_asks
def start_execution(local: Local, text: str) -> str:
    """Start an execution with a JSON input; returns its ARN."""
    try:
        json.loads(text)
    except ValueError as exc:
        raise SettingsError(f"the input is no JSON: {exc}") from exc
    return begin(local, text)


@_asks
def follow_execution(local: Local, arn: str) -> int:
    """Show an execution to its end; returns the exit status."""
    with Screen() as screen:
        try:
            execution = follow(local, arn, screen)
        except KeyboardInterrupt:
            screen.note(f"it goes on: `stockflow status {arn.rpartition(':')[2]}` shows it, `stockflow stop` ends it")
            raise
    seconds = f" after {(execution.stopped - execution.started).total_seconds():.0f} s" if execution.stopped else ""
    click.echo(f"{execution.name}: {execution.status}{seconds}")
    _show_coverage(local, execution)
    return _conclude(local, execution)


@_asks
def show_status(local: Local, name: str | None) -> None:
    """Print the states of one execution, and the newest ones in a list."""
    console = Console(highlight=False)
    executions = _executions(local)
    table = Table("execution", "status", "started (UTC)", title=local.machine)
    for listed in executions[:_LISTED]:
        table.add_row(listed["name"], listed["status"], f"{listed['startDate']:%Y-%m-%d %H:%M:%S}")
    console.print(table)
    if executions:
        execution = read_execution(local.connect("stepfunctions"), _find(executions, name))
        screen = Screen()
        for label, line in PhaseLogs(local.connect).new_lines(execution):
            screen.said(label, line)
        console.print(screen.table(execution))
        _show_coverage(local, execution)
        _conclude(local, execution)


@_asks
def print_logs(local: Local, phase: str, name: str | None, *, follow: bool) -> None:
    """Print what a phase's tasks said; go on until the execution has ended where that is asked for."""
    arn = _find(_executions(local), name)
    states, logs = local.connect("stepfunctions"), PhaseLogs(local.connect)
    while True:
        execution = read_execution(states, arn)
        for label, line in logs.new_lines(execution, phase):
            click.echo(f"{label}: {readable(line)}")
        if execution.ended or not follow:
            return
        time.sleep(_EVERY_S)


@_asks
def stop_execution(local: Local, name: str | None) -> str:
    """Stop an execution, the newest that runs unless one is named; returns what was done, in words."""
    executions = _executions(local)
    running = [listed for listed in executions if listed["status"] == "RUNNING"]
    arn = _find(executions if name else running or executions, name)
    execution = read_execution(local.connect("stepfunctions"), arn)
    if execution.ended:
        return f"{execution.name} has ended already: {execution.status}"
    execution, held = stop(local, arn, "stopped by the operator")
    left = f"; still held: {', '.join(held)}" if held else ""
    return f"{execution.name}: {execution.status}{left}"


def _executions(local: Local) -> list[dict[str, Any]]:
    """The newest first."""
    pages = local.connect("stepfunctions").get_paginator("list_executions").paginate(stateMachineArn=local.machine)
    found = [listed for page in pages for listed in page["executions"]]
    return sorted(found, key=lambda listed: listed["startDate"], reverse=True)


def _find(executions: list[dict[str, Any]], name: str | None) -> str:
    for listed in executions:
        if name in {None, listed["name"], listed["executionArn"]}:
            return str(listed["executionArn"])
    known = ", ".join(listed["name"] for listed in executions[:_LISTED])
    raise SettingsError(
        f"there is no execution {name}: {known or 'start one with `stockflow start`'}"
        if name
        else "nothing has been executed yet: type `stockflow start`"
    )


def _show_coverage(local: Local, execution: Execution) -> None:
    """Say how the tickers and the days of its ingest ended, where it got so far."""
    run_id = coverage_run(execution)
    market = local.buckets()["market"] if run_id else None
    if run_id and market and market.exists(key := contract.coverage_key(run_id)):
        for line in coverage_lines(market.get_json(key)):
            click.echo(line)


def _conclude(local: Local, execution: Execution) -> int:
    """Say why an execution failed; its exit status, 0 while it runs."""
    if execution.status in {"SUCCEEDED", "RUNNING"}:
        return 0
    reason, status = explain(execution, PhaseLogs(local.connect))
    click.echo(f"{OUR_MESSAGE}{execution.status}: {reason}", err=True)
    return status

"""What an operator does with a stack that is up: start, look, read, stop."""

from __future__ import annotations

import json
import time
from typing import Any

import click
from botocore.exceptions import ClientError
from rich.console import Console
from rich.table import Table

from app.errors import SettingsError, StockflowError
from app.processes import OUR_MESSAGE
from embedded.execution import Execution, read_execution
from embedded.local import Local
from embedded.phase_logs import PhaseLogs, readable
from embedded.reasons import explain
from embedded.screen import Screen
from embedded.watch import follow, stop

_EVERY_S = 1.0
_LISTED = 10


def start_execution(local: Local, text: str) -> str:
    """Start an execution with a JSON input; returns its ARN."""
    try:
        json.loads(text)
    except ValueError as exc:
        raise SettingsError(f"the input is no JSON: {exc}") from exc
    states = local.connect("stepfunctions")
    try:
        started = states.start_execution(stateMachineArn=local.machine, input=text)
    except ClientError as exc:
        raise StockflowError(f"the execution cannot be started: {exc}") from exc
    return str(started["executionArn"])


def follow_execution(local: Local, arn: str) -> int:
    """Show an execution to its end; returns the exit status."""
    with Screen() as screen:
        try:
            execution = follow(local, arn, screen)
        except KeyboardInterrupt:
            screen.note(f"it goes on: `stockflow status {arn.rpartition(':')[2]}` shows it, `stockflow stop` ends it")
            raise
    return _conclude(local, execution)


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
            screen.said(label, line, quiet=True)
        console.print(screen.table(execution))
        _conclude(local, execution)


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


def stop_execution(local: Local, name: str | None) -> str:
    """Stop an execution; returns what was done, in words."""
    execution = read_execution(local.connect("stepfunctions"), _find(_executions(local), name))
    if execution.ended:
        return f"{execution.name} has ended already: {execution.status}"
    return f"{execution.name}: {stop(local, execution.arn, 'stopped by the operator').status}"


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


def _conclude(local: Local, execution: Execution) -> int:
    """Say why an execution failed; its exit status, 0 while it runs."""
    if execution.status in {"SUCCEEDED", "RUNNING"}:
        return 0
    reason, status = explain(execution, PhaseLogs(local.connect))
    click.echo(f"{OUR_MESSAGE}{execution.status}: {reason}", err=True)
    return status

"""The commands of the embedded AWS: the whole stack on this machine. `embedded` is imported when one of them runs."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click

from app import contract
from app.cli_report import leave_report
from app.options import settings_options

_PORT = click.IntRange(0, 65535)
_PATH = click.Path(path_type=Path)
_SERVER_FLAGS = ("latency_ms", "rate", "fault_share", "fault_kinds")

_market_options = (
    click.option(
        "--market",
        default="simulated",
        show_default=True,
        help="Where bars come from: simulated, a Parquet file of bars, or yahoo (the live service).",
    ),
    click.option(
        "--tickers", "universe", help="As of `stockflow ingest`; by default all of the market's (dow30 for yahoo)."
    ),
    click.option("--s3-port", type=_PORT, default=0, help="Port of the embedded AWS; 0 takes a free one."),
    click.option("--yahoo-port", type=_PORT, default=0, help="Port of the local Yahoo; 0 takes a free one."),
    click.option("--latency-ms", type=click.FloatRange(min=0), help="Latency of the local Yahoo."),
    click.option("--rate", type=click.FloatRange(min=0), help="Requests a second it allows before it answers 429."),
    click.option("--fault-share", type=click.FloatRange(0, 1), help="Share of its answers that fail."),
    click.option("--fault-kinds", help="How they fail: of 429,500,drop,truncated,malformed,short,hang."),
    click.option("--sim", multiple=True, metavar="NAME=VALUE", help="Setting of the simulated market: tickers=50."),
    click.option(
        "--state",
        type=_PATH,
        callback=lambda context, option, path: path and path.expanduser().resolve(),
        help="Folder that outlives the embedded AWS: objects, executions and logs.",
    ),
)
_folder_option = click.option(
    "--dir",
    "folder",
    type=_PATH,
    default=Path("build/up"),
    show_default=True,
    help="Where `stockflow up` says what it runs.",
)


def _with_market(command: Callable[..., None]) -> Callable[..., None]:
    return reduce(lambda done, option: option(done), reversed(_market_options), command)


def _yahoo_flags(options: dict[str, Any]) -> tuple[str, ...]:
    """Take the local Yahoo's own options out, as the words of its command line."""
    words = [word for value in options.pop("sim") for word in ("--sim", value)]
    for name in _SERVER_FLAGS:
        if (value := options.pop(name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return tuple(words)


@click.command()
@_with_market
@click.option("--run-id", help="Name of the run; by default made from the time.")
@click.option("--out", type=_PATH, default=Path("build/run"), show_default=True, help="Where results are left.")
@settings_options
def run(settings_file: Path | None, **options: Any) -> None:
    """Deploy the stack on this machine, run its state machine once, leave the results in a folder.

    \b
    Examples:
      stockflow run
      stockflow run --market bars.parquet --set training.epochs=8
      stockflow run --market yahoo --tickers AAPL,MSFT,NVDA
      stockflow run --sim tickers=50 --latency-ms 150 --fault-share 0.05
    """
    from app.settings_file import with_file
    from embedded.run import Options
    from embedded.run import run as run_once

    environ = with_file(os.environ, options["flags"], settings_file)
    status = run_once(Options(yahoo_flags=_yahoo_flags(options), **options), environ)
    leave_report(options["out"])
    sys.exit(status)


@click.command()
@_with_market
@_folder_option
def up(folder: Path, universe: str | None, **options: Any) -> None:
    """Deploy the stack on this machine and leave it there; prints what points boto3 and the AWS CLI at it.

    Settings are each execution's own: `stockflow start` takes them.

    \b
    Examples:
      eval "$(stockflow up)"
      stockflow up --market bars.parquet --state ~/stockflow-state
    """
    from app.ingest.universe import read_universe
    from embedded.daemon import start_up
    from embedded.local import LocalOptions

    sp500_url = os.environ.get(contract.ENV_SP500_URL)
    asked = read_universe(universe, sp500_url) if universe is not None else None
    local = start_up(
        LocalOptions(universe=asked, yahoo_flags=_yahoo_flags(options), **options),
        folder,
        os.environ,
        lambda line: click.echo(line, err=True),
    )
    click.echo(local.deployment(), err=True)
    for name, value in local.exports(os.environ).items():
        click.echo(f"export {name}={shlex.quote(value)}")


@click.command()
@_folder_option
def down(folder: Path) -> None:
    """End what `stockflow up` started, and every task that runs on it.

    \b
    Example: stockflow down
    """
    from embedded.daemon import bring_down

    click.echo(bring_down(folder))


@click.command()
@click.option("--input", "file", type=click.File(), help="JSON input of the execution, - for standard input.")
@click.option("--follow", is_flag=True, help="Show it until it has ended; the exit status is 0 when it succeeded.")
@_folder_option
@settings_options
def start(file: Any, follow: bool, folder: Path, flags: tuple[str, ...], settings_file: Path | None) -> None:
    """Start an execution of the state machine, as the console does; the input is {} unless a file is named.

    Settings of the settings file are put under those of the input, those of --set over them.

    \b
    Examples:
      stockflow start
      stockflow start --set training.epochs=8 --follow
      echo '{"phases": ["train"], "settings": {"training": {"epochs": 8}}}' | stockflow start --input - --follow
    """
    from app.settings_file import with_file
    from embedded.daemon import attach
    from embedded.execution_input import with_settings
    from embedded.operate import follow_execution, start_execution

    asked = with_settings(file.read() if file else "{}", with_file(os.environ, flags, settings_file), flags)
    local = attach(folder)
    arn = start_execution(local, asked)
    click.echo(arn)
    if follow:
        sys.exit(follow_execution(local, arn))


@click.command()
@click.argument("execution", required=False)
@_folder_option
def status(execution: str | None, folder: Path) -> None:
    """Show the states of an execution, by default the newest, and list the others.

    \b
    Example: stockflow status
    """
    from embedded.daemon import attach
    from embedded.operate import show_status

    show_status(attach(folder), execution)


@click.command()
@click.argument("phase", type=click.Choice(["ingest", "dataset", "train", "promote", "serve"]))
@click.option("--follow", is_flag=True, help="Go on until the execution has ended.")
@click.option("--execution", help="Name of the execution; by default the newest.")
@_folder_option
def logs(phase: str, follow: bool, execution: str | None, folder: Path) -> None:
    """Print what the tasks of a phase said.

    \b
    Examples:
      stockflow logs train
      stockflow logs serve --follow
    """
    from embedded.daemon import attach
    from embedded.operate import print_logs

    print_logs(attach(folder), phase, execution, follow=follow)


@click.command()
@click.argument("execution", required=False)
@_folder_option
def stop(execution: str | None, folder: Path) -> None:
    """Stop an execution, by default the newest that runs, and wait until all that it holds is released.

    \b
    Example: stockflow stop
    """
    from embedded.daemon import attach
    from embedded.operate import stop_execution

    click.echo(stop_execution(attach(folder), execution))


LOCAL_COMMANDS = (run, up, start, status, logs, stop, down)

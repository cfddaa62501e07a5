"""The commands of the first minutes: what this machine lacks, a settings file, completion in the shell."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")
_FILE = "stockflow.toml"


@click.command()
@click.option("--aws", is_flag=True, help="Ask the AWS account too: credentials, region, CDK bootstrap, quotas.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end instead of a table.")
def doctor(aws: bool, as_json: bool) -> None:
    """Find out what this machine lacks for a run, and what to do about it.

    Each check is told as it ends; the longest starts Horovod on two ranks, as training does. The exit status is 0 when
    nothing fails; a warning fails nothing.

    \b
    Examples:
      stockflow doctor
      stockflow doctor --aws
      stockflow doctor --json
    """
    from app.doctor.run import examine_machine

    examine_machine(os.environ, aws=aws, as_json=as_json)


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=_FILE)
@click.option("--force", is_flag=True, help="Replace the file if there is one.")
def init(file: Path, force: bool) -> None:
    """Write a settings file: every setting with its default, its meaning and what it may be, all commented out.

    Commands read ./stockflow.toml by themselves; --settings names another file.

    \b
    Examples:
      stockflow init
      stockflow init quick.toml --force
    """
    from app.settings_file import write_file

    write_file(file, force=force)
    reads = "stockflow run" if file == Path(_FILE) else f"stockflow run --settings {file}"
    click.echo(f"{file} is written: remove the # before a setting to change it; `{reads}` reads it")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands, options and settings.

    \b
    Examples:
      eval "$(stockflow completion bash)"
      eval "$(stockflow completion zsh)"
      stockflow completion fish > ~/.config/fish/completions/stockflow.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  for mypy: all of _SHELLS are click's own
    click.echo(kind(context.find_root().command, {}, "stockflow", "_STOCKFLOW_COMPLETE").source())


SETUP_COMMANDS = (doctor, init, completion)

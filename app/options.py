"""Options that several commands have."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from app.errors import SettingsError


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `flags` and `settings_file`, which app.settings_file.with_file takes."""
    by_flag = click.option(
        "--set",
        "flags",
        multiple=True,
        metavar="GROUP.NAME=VALUE",
        shell_complete=_complete_setting,
        help="Change one setting, e.g. training.epochs=3. May be repeated; `stockflow settings` lists them.",
    )
    by_file = click.option(
        "--settings",
        "settings_file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Settings file, as `stockflow init` writes it; by default ./stockflow.toml where there is one.",
    )
    return by_flag(by_file(command))


def _complete_setting(context: click.Context, option: click.Parameter, typed: str) -> list[CompletionItem]:
    from app.settings_file import every_setting  # noqa: PLC0415  only while a shell completes a line

    found = ((f"{setting.group}.{setting.name}={setting.default}", setting.note) for setting in every_setting())
    return [CompletionItem(text, help=note) for text, note in found if text.startswith(typed)]


class ExamplesLast(click.Group):
    """A group of commands whose help ends with the examples of their docstrings, below the options."""

    def add_command(self, command: click.Command, name: str | None = None) -> None:
        """Add a command, and move its examples."""
        text, mark, examples = inspect.cleandoc(command.help or "").rpartition("\b\nExample")
        if mark:
            command.help = text.rstrip()
            command.epilog = "\n\n".join(filter(None, [command.epilog, f"\b\nExample{examples}"]))
        super().add_command(command, name)


def words(text: str) -> tuple[str, ...]:
    """What stands between commas or blanks."""
    return tuple(word for word in re.split(r"[\s,]+", text) if word)


def counts(text: str, name: str) -> tuple[int, ...]:
    """Whole numbers by commas, ascending, each once; SettingsError for anything else. name: what they are."""
    try:
        return tuple(sorted({int(word) for word in words(text)}))
    except ValueError as exc:
        raise SettingsError(f"{name} {text!r} are not whole numbers by commas, such as 1,2,4") from exc

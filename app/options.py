"""Options that several commands have."""

from __future__ import annotations

import re

import click

from app.errors import SettingsError

set_option = click.option(
    "--set",
    "flags",
    multiple=True,
    metavar="GROUP.NAME=VALUE",
    help="Change one setting, e.g. training.epochs=3. May be repeated; `stockflow settings` lists them.",
)


def words(text: str) -> tuple[str, ...]:
    """What stands between commas or blanks."""
    return tuple(word for word in re.split(r"[\s,]+", text) if word)


def counts(text: str, name: str) -> tuple[int, ...]:
    """Whole numbers by commas, ascending, each once; SettingsError for anything else. name: what they are."""
    try:
        return tuple(sorted({int(word) for word in words(text)}))
    except ValueError as exc:
        raise SettingsError(f"{name} {text!r} are not whole numbers by commas, such as 1,2,4") from exc

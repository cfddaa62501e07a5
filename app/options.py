"""Options that several commands have."""

from __future__ import annotations

import click

set_option = click.option(
    "--set",
    "flags",
    multiple=True,
    metavar="GROUP.NAME=VALUE",
    help="Change one setting, e.g. training.epochs=3. May be repeated; `stockflow settings` lists them.",
)

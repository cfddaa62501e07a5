"""The settings file: what ``stockflow init`` writes, and what commands read beside the environment and ``--set``.

TOML, a table for each group of settings. It is read where a command line starts, and nowhere else: what the command
starts in turn is told its settings by ``STOCKFLOW_SETTINGS``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from app import contract
from app.errors import SettingsError
from app.setting_words import allowed, unit
from app.settings import Settings, asked_in, layered, load

DEFAULT_FILE: Final = "stockflow.toml"
"""Read from the current folder where it is there."""

_HEAD = """\
# Settings of stockflow: each with its default, behind a #. Remove the # before a name to set it.
# `stockflow settings` lists them, `stockflow init --force` writes this file anew.
#
# Commands read ./{default}, or the file that --settings or {variable} names. Over it
# win the JSON object in {environment} and then --set. Market and universe are no settings, but options:
# `stockflow run --help`.
"""
_REFERENCE = """\
# Settings

<!-- Made by `stockflow settings --markdown`, and compared with it by a test. -->

Every setting of the phases. Where one is set in several places, the later of these wins:

1. the default, below;
2. a settings file: `./{default}`, if there is one, or the file that `--settings` names, or else
   `{variable}` (empty: no file is looked for). `stockflow init` writes one, in which every
   setting is commented out;
3. `{environ}`, a JSON object of groups: `{{"training": {{"epochs": 8}}}}`;
4. the `settings` of an execution's input: `stockflow start --input FILE`, or Step Functions' console;
5. `--set GROUP.NAME=VALUE`, which may be repeated.

`stockflow run`, `stockflow start`, `stockflow scale` and the commands of the phases read 2, 3 and 5. On AWS an
execution has what was deployed (`-c settings.training.epochs=8`, see [deploy.md](deploy.md)) and its input. A wrong
name or value is answered by one line that names the file, the setting and what is allowed, before anything is
started. Market and universe are no settings, but options of `stockflow run`, `up` and `ingest`.
"""


class Setting(NamedTuple):
    """A setting as people read of it. default: as JSON, which TOML spells the same; unit: empty where it has none."""

    group: str
    name: str
    default: str
    unit: str
    allowed: str
    note: str

    @property
    def range(self) -> str:
        """What it may be, in its unit."""
        return f"{self.allowed} ({self.unit})" if self.unit else self.allowed


def every_setting() -> Iterator[Setting]:
    """All settings, in the order of the model."""
    definitions = Settings.model_json_schema()["$defs"]
    for group, outer in Settings.model_fields.items():
        model = type(outer.get_default())
        for name, schema in definitions[model.__name__]["properties"].items():
            default = json.dumps(schema["default"])
            yield Setting(group, name, default, unit(name), allowed(schema), schema["description"])


def as_toml() -> str:
    """The file with every setting commented out."""
    lines = [_HEAD.format(default=DEFAULT_FILE, variable=contract.ENV_SETTINGS_FILE, environment=contract.ENV_SETTINGS)]
    for group, meaning in _groups():
        lines += [f"# --- {meaning}", "", f"[{group}]", ""]
        for setting in every_setting():
            if setting.group == group:
                lines += [f"# {setting.note}", f"# {setting.range}", f"#{setting.name} = {setting.default}", ""]
    return "\n".join(lines)


def as_markdown() -> str:
    """docs/settings.md: how settings are set, and a table of them for each group."""
    lines = [
        _REFERENCE.format(default=DEFAULT_FILE, variable=contract.ENV_SETTINGS_FILE, environ=contract.ENV_SETTINGS)
    ]
    for group, meaning in _groups():
        lines += [
            f"## {group}",
            "",
            meaning,
            "",
            "| setting | default | allowed | unit | meaning |",
            "|---|---|---|---|---|",
        ]
        for setting in every_setting():
            if setting.group == group:
                code = (f"`{setting.group}.{setting.name}`", f"`{setting.default}`")
                cells = (*code, setting.allowed, setting.unit, setting.note)
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _groups() -> Iterator[tuple[str, str]]:
    for group, outer in Settings.model_fields.items():
        yield group, str(type(outer.get_default()).__doc__)


def write_file(path: Path, *, force: bool) -> None:
    """Write the commented file; SettingsError when there is one already, unless `force`, or none can be written."""
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(as_toml())
    except FileExistsError as exc:
        raise SettingsError(f"{path} exists: name another file, or replace it with --force") from exc
    except OSError as exc:
        raise SettingsError(f"{path} cannot be written ({exc.strerror}): name another file") from exc


def with_file(environ: Mapping[str, str], flags: Sequence[str], named: Path | None) -> dict[str, str]:
    """The environment with the settings of a file in it, under those that it holds already.

    named: the file; None takes the one that ``STOCKFLOW_SETTINGS_FILE`` names, or the default one where it is there.
    Empty, the variable lets none be looked for, as it does in what is returned: the file is read once.
    Raises SettingsError, which names the file, for what the file makes wrong of the settings that `flags` complete.
    """
    path = named or _looked_for(environ)
    if path is None:
        return dict(environ)
    asked = layered(_read(path), asked_in(environ))
    filled = {**environ, contract.ENV_SETTINGS: json.dumps(asked, default=str), contract.ENV_SETTINGS_FILE: ""}
    if (wrong := _complaint(filled, flags)) and wrong != _complaint(environ, flags):
        raise SettingsError(f"{path}: {wrong}")
    return filled


def _looked_for(environ: Mapping[str, str]) -> Path | None:
    variable = environ.get(contract.ENV_SETTINGS_FILE)
    if variable is None:
        return path if (path := Path(DEFAULT_FILE)).is_file() else None
    return Path(variable) if variable else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise SettingsError(f"settings file {path} does not exist: `stockflow init {path}` writes one") from exc
    except OSError as exc:
        raise SettingsError(f"settings file {path} cannot be read ({exc.strerror})") from exc
    except ValueError as exc:  # TOMLDecodeError, or bytes that are no UTF-8
        raise SettingsError(
            f"{path} is not TOML: {exc}; a setting is a line such as epochs = 3 below [training]"
        ) from exc


def _complaint(environ: Mapping[str, str], flags: Sequence[str]) -> str:
    """What is wrong with the settings; empty when nothing is."""
    try:
        load(environ, flags)
    except SettingsError as exc:
        return str(exc)
    return ""

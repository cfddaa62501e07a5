"""Checks JSON values against a JSON schema, without a library: a Lambda has no pydantic.

The schema of the settings is the one that pydantic makes of app.settings.Settings, so bounds and names stay
written once. Only the keywords that it uses are known; another one is a bug and raises NotImplementedError.
"""

from __future__ import annotations

import copy
import difflib
import math
import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Final

from app.errors import SettingsError
from app.rules import broken_rule

Schema = Mapping[str, Any]
Json = dict[str, Any]

_NOTES: Final = frozenset({"title", "description", "default", "$defs"})
_SHOWN = 60
"""Characters of a wrong value that an error repeats."""
_LISTED = 8
"""Allowed values that an error lists: all of them, or the most similar ones."""


def merged(defaults: Mapping[str, Json], overrides: Any, schema: Schema) -> dict[str, Json]:
    """Complete settings: `defaults` with the groups and values of `overrides` put over them.

    Raises SettingsError for whatever app.settings.load would refuse.
    """
    check(overrides, schema)
    settings = copy.deepcopy(dict(defaults))
    for group, values in overrides.items():
        settings[group] = {**settings[group], **values}
    if broken := broken_rule(settings):
        raise SettingsError(broken)
    return settings


def check(value: Any, schema: Schema, noun: str = "setting") -> None:
    """Whether a value keeps a schema; noun: what a value of it is called.

    Raises SettingsError for the first thing that is wrong: its name, its value and what is allowed.
    """
    _check(value, schema, schema, (), noun)


def _check(value: Any, schema: Schema, root: Schema, path: tuple[str, ...], noun: str) -> None:
    schema = _resolved(schema, root)
    for keyword, limit in sorted(schema.items(), key=lambda item: item[0] != "type"):  # the others rely on the type
        if keyword in _STRUCTURE or keyword in _NOTES:
            continue
        if keyword not in _TESTS:
            raise NotImplementedError(f"JSON schema keyword {keyword!r} at {'.'.join(path) or 'the top'}")
        if complaint := _TESTS[keyword](value, limit):
            raise SettingsError(f"{_named(noun, path)}={_shown(value)}: {complaint}")
    for name, inner, part in _parts(value, schema, path, noun):
        _check(inner, part, root, (*path, name), noun)


def _parts(value: Any, schema: Schema, path: tuple[str, ...], noun: str) -> list[tuple[str, Any, Schema]]:
    """Name, value and schema of each part of an object or an array."""
    if isinstance(value, dict) and "properties" in schema:
        if schema.get("additionalProperties") is not False:
            raise NotImplementedError(f"JSON schema of an open object at {'.'.join(path) or 'the top'}")
        allowed = schema["properties"]
        for unknown in (name for name in value if name not in allowed):
            names = ", ".join(".".join((*path, name)) for name in allowed)
            raise SettingsError(f"unknown {_named(noun, (*path, unknown))}: allowed are {names}")
        return [(name, inner, allowed[name]) for name, inner in value.items()]
    if isinstance(value, list) and "items" in schema:
        return [(str(i), inner, schema["items"]) for i, inner in enumerate(value)]
    return []


def _resolved(schema: Schema, root: Schema) -> Schema:
    """The schema with its local reference followed."""
    if "$ref" not in schema:
        return schema
    section, _, name = str(schema["$ref"]).removeprefix("#/").partition("/")
    siblings = {keyword: limit for keyword, limit in schema.items() if keyword != "$ref"}
    return {**root[section][name], **siblings}


def _named(noun: str, path: tuple[str, ...]) -> str:
    return f"{noun} {'.'.join(path)}" if path else noun


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


# --- one test for each keyword: a complaint, or None ---------------------------------------------


def _is_number(value: Any) -> bool:
    try:
        return type(value) in {int, float} and math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


_TYPES: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    "object": ("an object", lambda value: isinstance(value, dict)),
    "array": ("a list", lambda value: isinstance(value, list)),
    "string": ("text", lambda value: isinstance(value, str)),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "integer": ("an integer", lambda value: type(value) is int),
    "number": ("a number", _is_number),
}


def _type(value: Any, limit: str) -> str | None:
    name, holds = _TYPES[limit]
    return None if holds(value) else f"must be {name}"


def _enum(value: Any, limit: list[Any]) -> str | None:
    if any(type(value) is type(allowed) and value == allowed for allowed in limit):
        return None
    if len(limit) <= _LISTED:
        return f"must be one of {', '.join(map(repr, limit))}"
    nearest = difflib.get_close_matches(str(value), map(str, limit), _LISTED, cutoff=0)
    return f"must be one of {', '.join(map(repr, nearest))} or {len(limit) - _LISTED} others"


def _pattern(value: Any, limit: str) -> str | None:
    end = re.sub(r"\$$", r"\\Z", limit)  # a schema's $ is the very end, Python's forgives a newline
    return None if not isinstance(value, str) or re.search(end, value) else f"must match {limit}"


def _format(value: Any, limit: str) -> str | None:
    if limit != "date":
        raise NotImplementedError(f"JSON schema format {limit!r}")
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            date.fromisoformat(value)
            return None
    except ValueError:
        pass
    return "must be a day such as 2026-03-16"


_STRUCTURE: Final = frozenset({"properties", "items", "additionalProperties"})
_TESTS: Final[Mapping[str, Callable[[Any, Any], str | None]]] = {
    "type": _type,
    "enum": _enum,
    "const": lambda value, limit: _enum(value, [limit]),
    "minimum": lambda value, limit: None if value >= limit else f"must be at least {limit:.12g}",
    "maximum": lambda value, limit: None if value <= limit else f"must be at most {limit:.12g}",
    "exclusiveMinimum": lambda value, limit: None if value > limit else f"must be more than {limit:.12g}",
    "exclusiveMaximum": lambda value, limit: None if value < limit else f"must be less than {limit:.12g}",
    "minItems": lambda value, limit: None if len(value) >= limit else f"must name at least {limit}",
    "pattern": _pattern,
    "format": _format,
}
KNOWN_KEYWORDS: Final = frozenset({*_TESTS, *_STRUCTURE, *_NOTES, "$ref"})
"""The keywords that a schema may use."""

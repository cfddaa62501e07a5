"""What a setting may be, in words: made of the JSON schema that pydantic makes of a model. Standard library only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]

_UNITS = {
    "per_s": "a second",
    "s": "seconds",
    "min": "minutes",
    "days": "days",
    "mib": "MiB",
    "share": "share of 1",
    "epochs": "epochs",
    "steps": "steps",
    "rows": "rows",
}
"""By how a name ends; the longest ending counts."""


def unit(name: str) -> str:
    """The unit that a setting's name ends in, in full; empty where it has none."""
    return next((words for end, words in _UNITS.items() if f"_{name}".endswith(f"_{end}")), "")


def allowed(schema: Schema, *, plural: bool = False) -> str:
    """The values that a setting's schema allows. plural: as what a list is of."""
    if "enum" in schema or "const" in schema:
        choices = ", ".join(map(str, schema.get("enum") or [schema["const"]]))
        return choices if plural else f"one of {choices}"
    kind = schema.get("type")
    if kind == "array":
        least = ", not empty" if schema.get("minItems") else ""
        return f"list of {allowed(schema['items'], plural=True)}{least}"
    if kind == "boolean":
        return "true or false"
    if kind == "string":
        return _text(schema, plural)
    noun = "whole number" if kind == "integer" else "number"
    return ", ".join(filter(None, [f"{noun}s" if plural else noun, _range(schema)]))


def _text(schema: Schema, plural: bool) -> str:
    if schema.get("format") == "date":
        return "days as text, such as 2026-03-16" if plural else "a day as text, such as 2026-03-16"
    return f"text that matches `{schema['pattern']}`" if "pattern" in schema else "text"


def _range(schema: Schema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f"{_number(schema['minimum'])} to {_number(schema['maximum'])}"
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "more than",
        "maximum": "at most",
        "exclusiveMaximum": "less than",
    }
    return ", ".join(f"{words} {_number(schema[key])}" for key, words in bounds.items() if key in schema)


def _number(value: float) -> str:
    return f"{value:,.12g}"


def schema_at(path: Sequence[str], root: Schema) -> Schema:
    """The schema of what a path of names leads to; of a list where it goes on into one. Empty where there is none."""
    found = root
    for part in path:
        found = _resolved(found, root)
        if "items" in found:
            return found
        found = found.get("properties", {}).get(part, {})
    return _resolved(found, root)


def _resolved(schema: Schema, root: Schema) -> Schema:
    """The schema with its local reference followed."""
    reference = str(schema.get("$ref", ""))
    resolved: Schema = root["$defs"][reference.rpartition("/")[2]] if reference else schema
    return resolved


def names_in(schema: Schema, root: Schema, prefix: str = "") -> Iterable[str]:
    """Full names of all settings of a model, and of their groups."""
    for name, inner in _resolved(schema, root).get("properties", {}).items():
        yield f"{prefix}{name}"
        yield from names_in(inner, root, f"{prefix}{name}.")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The known name that a wrong one most likely stands for, of its own group or else of any; None without one."""
    group, _, end = name.rpartition(".")
    siblings: dict[str, str] = {}
    others: dict[str, str] = {}
    for known in names:
        at, _, last = known.rpartition(".")
        (siblings if at == group else others).setdefault(last, known)
    for found, cutoff in ((siblings, 0.6), (others, 0.8)):
        if alike := difflib.get_close_matches(end, found, 1, cutoff):
            return found[alike[0]]
    return None

"""From what a template calls things to what a service's API calls them, by the API's own description.

Most of CloudFormation's types are one call of an API with the same structure: names differ in their capitals, numbers
may be written as strings, documents as objects, tags as a list or as a map. A property that the API does not know is an
error and never dropped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from app.errors import StockflowError


class UnknownProperty(StockflowError):
    """A template sets what this library does not pass on."""

    exit_code = 10

    def __init__(self, path: str, known: list[str]) -> None:
        super().__init__(
            f"property {path} is not carried over to the embedded AWS: it takes {', '.join(sorted(known))}"
        )
        self.path = path


def check_known(written: Iterable[str], known: Iterable[str], path: str = "") -> None:
    """Raise UnknownProperty for the first name that is none of the known ones. path: where they are written."""
    for name in written:
        if name not in known:
            raise UnknownProperty(f"{path}.{name}" if path else name, list(known))


def fit(value: Any, shape: Any, path: str = "") -> Any:
    """The value as botocore's shape wants it; UnknownProperty names what has no place there."""
    convert = _CONVERSIONS.get(shape.type_name)
    return convert(value, shape, path) if convert else value


def _structure(value: Mapping[str, Any], shape: Any, path: str) -> dict[str, Any]:
    members = {name.lower(): name for name in shape.members}
    fitted: dict[str, Any] = {}
    for key, item in value.items():
        inside = f"{path}.{key}" if path else key
        name = members.get(key.lower()) or members.get(f"tag{key.lower()}")  # KMS says TagKey where others say Key
        if name is None:
            raise UnknownProperty(inside, list(shape.members))
        fitted[name] = fit(item, shape.members[name], inside)
    return fitted


def _map(value: Any, shape: Any, path: str) -> dict[str, Any]:
    pairs = value.items() if isinstance(value, Mapping) else ((tag["Key"], tag["Value"]) for tag in value)
    return {name: fit(item, shape.value, f"{path}.{name}") for name, item in pairs}


def _list(value: Any, shape: Any, path: str) -> list[Any]:
    return [fit(item, shape.member, path) for item in (value if isinstance(value, list | tuple) else [value])]


def _string(value: Any, shape: Any, path: str) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _boolean(value: Any, shape: Any, path: str) -> bool:
    return value.lower() == "true" if isinstance(value, str) else bool(value)


def _integer(value: Any, shape: Any, path: str) -> int:
    return int(value)


def _number(value: Any, shape: Any, path: str) -> float:
    return float(value)


_CONVERSIONS: Mapping[str, Callable[[Any, Any, str], Any]] = {
    "structure": _structure,
    "map": _map,
    "list": _list,
    "string": _string,
    "boolean": _boolean,
    "integer": _integer,
    "long": _integer,
    "float": _number,
    "double": _number,
}

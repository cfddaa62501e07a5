"""What Step Functions makes of the expressions in a definition with JSONPath.

Only what the definition uses is known, by the rules of https://states-language.net/spec.html; everything else is
refused, so that nothing passes unchecked.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jsonpath_ng.parser import parse


class AslError(Exception):
    """Step Functions would fail the execution here, or the definition uses what is not known here."""


@dataclass(frozen=True)
class Scope:
    """What the expressions of a state see: ``$``, the state's data, and ``$$``, the execution's context."""

    data: Any
    context: Any


def payload(template: Any, scope: Scope) -> Any:
    """A payload template with its ``.$`` names replaced by values."""
    if isinstance(template, list):
        return [payload(item, scope) for item in template]
    if not isinstance(template, dict):
        return template
    made: dict[str, Any] = {}
    for name, value in template.items():
        plain = name.removesuffix(".$")
        if plain in made:
            raise AslError(f"{plain} stands twice in one object")
        made[plain] = expression(value, scope) if name != plain else payload(value, scope)
    return made


def expression(text: str, scope: Scope) -> Any:
    """The value of a path or of an intrinsic function."""
    if not text.startswith(("$", "States.")):
        raise AslError(f"{text!r} is neither a path nor an intrinsic function")
    value, end = _argument(text, 0, scope)
    if end != len(text):
        raise AslError(f"{text!r}: {text[end:]!r} is left over")
    return value


def path_value(path: str, scope: Scope) -> Any:
    """The one value that a path leads to."""
    root, below = (scope.context, path[1:]) if path.startswith("$$") else (scope.data, path)
    found = [match.value for match in _compiled(below).find(root)]
    if len(found) != 1:
        raise AslError(f"{path} leads to {len(found)} values, not to one")
    return found[0]


@cache
def _compiled(path: str) -> Any:
    return parse(path)


class _Quoted(str):
    """Text between single quotes as it is written, backslashes included."""


_ARGUMENT = re.compile(
    r"""(?P<call>[A-Za-z][A-Za-z0-9.]*)\(
        | '(?P<quoted>(?:\\.|[^'\\])*)'
        | (?P<path>\$[^\s,)]*)
        | (?P<literal>-?\d+(?:\.\d+)?|true|false|null)""",
    re.VERBOSE | re.DOTALL,
)
_BETWEEN = re.compile(r"\s*,\s*")
_CLOSING = re.compile(r"\s*\)")


def _argument(text: str, start: int, scope: Scope) -> tuple[Any, int]:
    """The value that begins at `start`, and where it ends."""
    token = _ARGUMENT.match(text, start)
    if not token:
        raise AslError(f"{text!r}: no argument at character {start}")
    match token.lastgroup:
        case "call":
            return _call(token["call"], text, token.end(), scope)
        case "quoted":
            return _Quoted(token["quoted"]), token.end()
        case "path":
            return path_value(token["path"], scope), token.end()
        case _:
            return json.loads(token["literal"]), token.end()


def _call(name: str, text: str, start: int, scope: Scope) -> tuple[Any, int]:
    """The result of the function whose arguments begin at `start`, and where its parenthesis ends."""
    if name not in _INTRINSICS:
        raise AslError(f"{text!r}: intrinsic function {name} is not known")
    values: list[Any] = []
    start += len(text[start:]) - len(text[start:].lstrip())
    while not (closing := _CLOSING.match(text, start)):
        if values:
            comma = _BETWEEN.match(text, start)
            if not comma:
                raise AslError(f"{text!r}: no comma at character {start}")
            start = comma.end()
        value, start = _argument(text, start, scope)
        values.append(value)
    return _INTRINSICS[name](*values), closing.end()


def _plain(value: Any) -> Any:
    """A value without the backslashes of quoted text; each of them stands before one of ``'{}\\``."""
    if not isinstance(value, _Quoted):
        return value
    if wrong := re.search(r"(?:^|[^\\])(?:\\\\)*\\([^'{}\\])", value):
        raise AslError(f"{value!r}: a backslash before {wrong[1]!r} escapes nothing")
    return re.sub(r"\\(.)", r"\1", value)


def _format(template: Any, *values: Any) -> str:
    if not isinstance(template, _Quoted):
        raise AslError("a template that is no quoted text is not known here")
    parts = re.split(r"(?<!\\)\{\}", template)
    if len(parts) != len(values) + 1:
        raise AslError(f"{template!r} has {len(parts) - 1} places for {len(values)} values")
    if any(re.search(r"(?<!\\)[{}]", part) for part in parts):
        raise AslError(f"{template!r}: a brace that is no place for a value needs a backslash")
    plain = [str(_plain(_Quoted(part))) for part in parts]
    return plain[0] + "".join(_as_text(value) + after for value, after in zip(values, plain[1:], strict=True))


def _as_text(value: Any) -> str:
    if isinstance(value, (dict, list)):
        raise AslError(f"a value in States.Format is plain, not {value!r}")
    return str(_plain(value)) if isinstance(value, str) else json.dumps(value)


def _encode(text: str) -> str:
    if len(text) > 10_000:
        raise AslError("States.Base64Encode takes 10,000 characters at most")
    return base64.b64encode(text.encode()).decode()


_INTRINSICS: Mapping[str, Callable[..., Any]] = {
    "States.Array": lambda *values: [_plain(value) for value in values],
    "States.Base64Encode": lambda text: _encode(_plain(text)),
    "States.Format": _format,
    "States.JsonToString": lambda value: json.dumps(value, separators=(",", ":")),
    "States.UUID": lambda: str(uuid.uuid4()),
}

"""Patterns of policies: ``*`` for any characters, slashes and colons too, ``?`` for one, and policy variables."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

Values = Callable[[str], tuple[str, ...]]
"""The values of a context key; none where the request does not have it."""

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_WITH_DEFAULT = re.compile(r"([^,]+?)\s*(?:,\s*'([^']*)')?")


class Pattern:
    """A pattern as a policy writes it. variables: whether ``${...}`` stands for the value of a context key.

    The value of a variable is taken literally: a star in it is a star.
    """

    __slots__ = ("_parts", "_whole", "text")

    def __init__(self, text: str, *, variables: bool = False, ignore_case: bool = False) -> None:
        self.text = text
        self._parts = _split(text) if variables and "${" in text else ()
        self._whole = None if self._parts else compiled(text, ignore_case)

    def matches(self, value: str, context: Values) -> bool:
        """Whether the value is one that the pattern stands for; False where a variable has no single value."""
        if self._whole is not None:
            return self._whole.fullmatch(value) is not None
        filled = self._filled(context)
        return filled is not None and re.fullmatch(filled, value, re.DOTALL) is not None

    def plain(self, context: Values) -> str | None:
        """The text, its variables filled in, stars and question marks as they stand; None where one has no value."""
        if not self._parts:
            return self.text
        pieces = [_value(part, context) if is_variable else part for is_variable, part in self._parts]
        return None if None in pieces else "".join(filter(None, pieces))

    def _filled(self, context: Values) -> str | None:
        expressions = []
        for is_variable, part in self._parts:
            value = _value(part, context) if is_variable else part
            if value is None:
                return None
            expressions.append(re.escape(value) if is_variable else expression(value))
        return "".join(expressions)


@lru_cache(maxsize=8192)
def compiled(text: str, ignore_case: bool = False) -> re.Pattern[str]:
    """The regular expression of a pattern without variables."""
    return re.compile(expression(text), re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def expression(text: str) -> str:
    """A pattern without variables, as a regular expression."""
    wild = {"*": ".*", "?": "."}
    return "".join(wild.get(character) or re.escape(character) for character in text)


def _split(text: str) -> tuple[tuple[bool, str], ...]:
    """Text and variables in turn; the second of each pair is the text or what stands between the braces."""
    parts, end = [], 0
    for found in _VARIABLE.finditer(text):
        parts += [(False, text[end : found.start()]), (True, found[1].strip())]
        end = found.end()
    return (*parts, (False, text[end:]))


def _value(variable: str, context: Values) -> str | None:
    if variable in {"*", "?", "$"}:
        return variable
    found = _WITH_DEFAULT.fullmatch(variable)
    if found is None:
        return None
    values = context(found[1])
    return values[0] if len(values) == 1 else found[2]

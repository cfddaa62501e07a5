"""The Condition block of a statement: operators, what they mean for a key with several values, and without any."""

from __future__ import annotations

import base64
import binascii
import contextlib
import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from embedded.aws.iam.context import Context
from embedded.aws.iam.patterns import Pattern, Values, compiled

Comparison = Callable[[Pattern, str, Values], bool]
"""(what the policy writes, a value of the request, the request's context) -> whether they agree."""


class Operator(NamedTuple):
    """negated: it holds when the value agrees with none of the policy's."""

    agrees: Comparison
    negated: bool = False


@dataclass(frozen=True)
class Requirement:
    """One operator on one key.

    operator: None for one that is not known here; each: "" for the plain operator, else "any" or "all" of the
    request's values; if_exists: met where the request does not have the key.
    """

    key: str
    wanted: tuple[Pattern, ...]
    operator: Operator | None
    each: str = ""
    if_exists: bool = False

    def met(self, context: Context, *, unknown: bool) -> bool:
        """Whether the request meets it. unknown: the answer for an operator that is not known."""
        if self.operator is None:
            return unknown
        actual = context.get(self.key)
        if self.operator is _NULL:
            return any((pattern.text.lower() == "true") == (not actual) for pattern in self.wanted)
        if not actual:
            return self.each == "all" or self.if_exists or (self.operator.negated and not self.each)
        met = (self._met_by(self.operator, value, context) for value in actual)
        return all(met) if self.each == "all" or (self.operator.negated and not self.each) else any(met)

    def _met_by(self, operator: Operator, value: str, context: Context) -> bool:
        return any(operator.agrees(pattern, value, context.get) for pattern in self.wanted) != operator.negated


def parse_conditions(block: Mapping[str, Mapping[str, Any]], *, variables: bool) -> tuple[Requirement, ...]:
    """All requirements of a Condition block; a statement is about a request that meets every one."""
    return tuple(
        _parse(operator, key, wanted, variables) for operator, keys in block.items() for key, wanted in keys.items()
    )


def _parse(written: str, key: str, wanted: Any, variables: bool) -> Requirement:
    quantifier, _, name = written.lower().rpartition(":")
    each = {"": "", "foranyvalue": "any", "forallvalues": "all"}.get(quantifier)
    operator = _OPERATORS.get(name.removesuffix("ifexists")) if each is not None else None
    listed = wanted if isinstance(wanted, list) else [wanted]
    patterns = tuple(Pattern(_text(value), variables=variables) for value in listed)
    return Requirement(key, patterns, operator, each or "", name.endswith("ifexists"))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- what the operators compare -------------------------------------------------------------------


def _equals(pattern: Pattern, value: str, context: Values) -> bool:
    return pattern.plain(context) == value


def _equals_ignoring_case(pattern: Pattern, value: str, context: Values) -> bool:
    wanted = pattern.plain(context)
    return wanted is not None and wanted.lower() == value.lower()


def _like(pattern: Pattern, value: str, context: Values) -> bool:
    return pattern.matches(value, context)


def _arn_like(pattern: Pattern, value: str, context: Values) -> bool:
    """Each of an ARN's six parts by itself: a star reaches over a colon only in the last part, or at the very end."""
    if "${" in pattern.text:
        return pattern.matches(value, context)
    wanted, actual = pattern.text.split(":", 5), value.split(":", 5)
    if pattern.text.endswith("*"):
        wanted += ["*"] * (len(actual) - len(wanted))
    return len(actual) == len(wanted) and all(
        compiled(part).fullmatch(found) is not None for part, found in zip(wanted, actual, strict=True)
    )


def _same_truth(pattern: Pattern, value: str, context: Values) -> bool:
    return pattern.text.lower() == value.lower()


def _same_bytes(pattern: Pattern, value: str, context: Values) -> bool:
    with contextlib.suppress(binascii.Error):
        return base64.b64decode(pattern.text, validate=True) == base64.b64decode(value, validate=True)
    return False


def _in_network(pattern: Pattern, value: str, context: Values) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(value) in ipaddress.ip_network(pattern.text, strict=False)
    return False


def _moment(text: str) -> float:
    """Seconds since 1970, of an ISO 8601 date or of such a number."""
    with contextlib.suppress(ValueError):
        return float(text)
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _ordered(read: Callable[[str], float], agree: Callable[[float, float], bool]) -> Comparison:
    """Compares the request's value with the policy's; what cannot be read agrees with nothing."""

    def compare(pattern: Pattern, value: str, context: Values) -> bool:
        with contextlib.suppress(ValueError):
            return agree(read(value), read(pattern.text))
        return False

    return compare


def _orders(kind: str, read: Callable[[str], float]) -> Iterator[tuple[str, Operator]]:
    same = _ordered(read, lambda value, wanted: value == wanted)
    yield f"{kind}equals", Operator(same)
    yield f"{kind}notequals", Operator(same, negated=True)
    yield f"{kind}lessthan", Operator(_ordered(read, lambda value, wanted: value < wanted))
    yield f"{kind}lessthanequals", Operator(_ordered(read, lambda value, wanted: value <= wanted))
    yield f"{kind}greaterthan", Operator(_ordered(read, lambda value, wanted: value > wanted))
    yield f"{kind}greaterthanequals", Operator(_ordered(read, lambda value, wanted: value >= wanted))


_NULL = Operator(_same_truth)
"""Asks whether the request has the key, not for its value."""
_OPERATORS: Mapping[str, Operator] = {
    "stringequals": Operator(_equals),
    "stringnotequals": Operator(_equals, negated=True),
    "stringequalsignorecase": Operator(_equals_ignoring_case),
    "stringnotequalsignorecase": Operator(_equals_ignoring_case, negated=True),
    "stringlike": Operator(_like),
    "stringnotlike": Operator(_like, negated=True),
    "arnequals": Operator(_arn_like),
    "arnlike": Operator(_arn_like),
    "arnnotequals": Operator(_arn_like, negated=True),
    "arnnotlike": Operator(_arn_like, negated=True),
    "bool": Operator(_same_truth),
    "null": _NULL,
    "binaryequals": Operator(_same_bytes),
    "ipaddress": Operator(_in_network),
    "notipaddress": Operator(_in_network, negated=True),
    **dict(_orders("numeric", float)),
    **dict(_orders("date", _moment)),
}

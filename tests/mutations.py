"""Answers gone wrong, drawn from a seed: bodies with wrong bytes, documents with wrong values or another structure."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, MutableSequence
from typing import Any

from tests.charts import COLUMNS

_TOKENS = (
    *(b"null", b"true", b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1e-999", b"9" * 40, b"1" * 5000),
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"-", b".", b"0", b"e", b" ", b"\n", b"\0", b"[" * 2000),
    *(b'"error":{"code":"x"},', b'"close":[],', b'"timestamp":[],', b"\\u0041", b"\\ud800", b"\xff", b"\xc3\xa9"),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.0, -0.0, -0.5, 0.5, 7, 100.25, 99, 149.9, 151.0, 300.0, 5e-324, 1.7e308),
    *(2**53, 2**54, 2**63, -(2**63) - 1, 2**64, 10**30, 10**310, float("inf"), float("-inf"), float("nan")),
    *("", "1m", "5m", "AAPL", "aapl", "MSFT", "100.0", "null", "Not Found", [], {}, [None], [[]], [1, 2], {"open": []}),
)
_WRONG_KINDS: tuple[Any, ...] = (None, True, "", "100.0", [], {}, [[]], {"raw": 1.0})


# --- bytes ----------------------------------------------------------------------------------------


def mutated_body(body: bytes, draw: random.Random) -> bytes:
    """A body with one to three of: bytes flipped, deleted, inserted, repeated, swapped in slices, cut off."""
    text = bytearray(body)
    for _ in range(draw.randint(1, 3)):
        draw.choice(_OF_BYTES)(text, draw)
    return bytes(text)


def _slice(text: bytearray, draw: random.Random) -> slice:
    first = draw.randint(0, len(text))
    return slice(first, min(len(text), first + draw.choice((1, 1, 2, 5, 20, 200))))


def _flip(text: bytearray, draw: random.Random) -> None:
    if text:
        text[draw.randrange(len(text))] ^= 1 << draw.randrange(8)


def _change_a_digit(text: bytearray, draw: random.Random) -> None:
    digits = [i for i, byte in enumerate(text) if 48 <= byte < 58]
    if digits:
        text[draw.choice(digits)] = 48 + draw.randrange(10)


def _delete(text: bytearray, draw: random.Random) -> None:
    del text[_slice(text, draw)]


def _insert(text: bytearray, draw: random.Random) -> None:
    at = draw.randint(0, len(text))
    text[at:at] = draw.choice(_TOKENS) if draw.random() < 0.7 else draw.randbytes(draw.randint(1, 4))


def _overwrite(text: bytearray, draw: random.Random) -> None:
    text[_slice(text, draw)] = draw.choice(_TOKENS)


def _repeat(text: bytearray, draw: random.Random) -> None:
    part = _slice(text, draw)
    text[part.start : part.start] = text[part]


def _swap(text: bytearray, draw: random.Random) -> None:
    one, other = sorted((_slice(text, draw), _slice(text, draw)), key=lambda part: part.start)
    if one.stop <= other.start:
        first, last = bytes(text[one]), bytes(text[other])
        text[other] = first
        text[one] = last


def _cut(text: bytearray, draw: random.Random) -> None:
    del text[draw.randint(0, len(text)) :]


_OF_BYTES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_flip, _change_a_digit, _change_a_digit, _delete, _insert, _overwrite, _repeat, _swap, _cut),
)


# --- values ---------------------------------------------------------------------------------------


def mutated_document(document: Any, draw: random.Random) -> bytes:
    """The text of a document with one to three values, wherever they stand, replaced, gone, repeated or renamed."""
    holder = [copy.deepcopy(document)]
    for _ in range(draw.randint(1, 3)):
        parent, key = _spot(holder, draw)
        match draw.choice(("replace", "replace", "replace", "delete", "repeat", "rename")):
            case "replace":
                parent[key] = copy.deepcopy(draw.choice(_VALUES))
            case "delete" if parent is not holder:
                del parent[key]
            case "repeat" if isinstance(parent, list) and parent is not holder:
                parent.insert(draw.randint(0, len(parent)), copy.deepcopy(parent[key]))
            case "rename" if isinstance(parent, dict):
                parent[draw.choice(("x", "open", "close", "volume", "timestamp", "error", "meta"))] = parent.pop(key)
    return _text(holder[0], draw)


def _spot(holder: list[Any], draw: random.Random) -> tuple[Any, Any]:
    """A place in a document: what holds it and under which key or index; as often near the root as far from it."""
    parent: Any = holder
    key: Any = 0
    while isinstance(parent[key], dict | list) and parent[key] and draw.random() < 0.85:
        parent = parent[key]
        key = draw.choice(list(parent)) if isinstance(parent, dict) else draw.randrange(len(parent))
    return parent, key


def _text(document: Any, draw: random.Random) -> bytes:
    """Any of the texts of a document."""
    return json.dumps(
        document,
        ensure_ascii=draw.random() < 0.5,
        separators=draw.choice(((",", ":"), (", ", ": "))),
        indent=draw.choice((None, None, 1)),
    ).encode()


# --- structure ------------------------------------------------------------------------------------


def restructured(document: Any, draw: random.Random) -> bytes:
    """The text of a chart that lost, repeated or disordered what it holds, or holds it in another form.

    No number is replaced by another, and no column is disordered by itself: none of its rows says what the chart
    did not say, but that a volume may be null.
    """
    changed = copy.deepcopy(document)
    for _ in range(draw.randint(1, 3)):
        if _is_chart(changed):
            draw.choice(_OF_STRUCTURE)(changed, draw)
    text = _text(changed, draw)
    return text if draw.random() < 0.9 else text[: draw.randrange(len(text))]


def _is_chart(document: Any) -> bool:
    try:
        columns = _columns(document)
    except (KeyError, TypeError, IndexError):
        return False
    return all(isinstance(column, list) for column in columns) and len({len(column) for column in columns}) == 1


def _columns(document: Any) -> list[Any]:
    result = document["chart"]["result"][0]
    return [result["timestamp"], *(result["indicators"]["quote"][0][name] for name in COLUMNS)]


def _lose_rows(document: Any, draw: random.Random) -> None:
    part = _rows(document, draw)
    for column in _columns(document):
        del column[part]


def _repeat_rows(document: Any, draw: random.Random) -> None:
    part = _rows(document, draw)
    at = draw.randint(0, part.stop)
    for column in _columns(document):
        column[at:at] = column[part]


def _disorder_rows(document: Any, draw: random.Random) -> None:
    order = list(range(len(_columns(document)[0])))
    draw.shuffle(order)
    for column in _columns(document):
        column[:] = [column[i] for i in order]


def _empty_rows(document: Any, draw: random.Random) -> None:
    part = _rows(document, draw)
    columns = _columns(document)[1:]
    for column in columns if draw.random() < 0.5 else [draw.choice(columns)]:
        column[part] = [None] * len(column[part])


def _change_a_column(document: Any, draw: random.Random) -> None:
    column: MutableSequence[Any] = draw.choice(_columns(document))
    at = draw.randint(0, max(0, len(column) - 1))
    match draw.choice(("shorter", "longer", "empty", "another kind")):
        case "shorter":
            del column[at : at + draw.choice((1, 1, len(column)))]
        case "longer":
            column[at:at] = column[at : at + 1] or [None]
        case "empty":
            column.clear()
        case "another kind" if column:
            column[at] = copy.deepcopy(draw.choice(_WRONG_KINDS[1:]))


def _change_the_frame(document: Any, draw: random.Random) -> None:
    """Something above or beside the columns."""
    holder = [document]
    parent, key = _spot(holder, draw)
    while parent is holder or (isinstance(parent, list) and parent in _columns(document)):
        parent, key = _spot(holder, draw)
    match draw.choice(("replace", "delete", "rename", "repeat")):
        case "replace":
            parent[key] = copy.deepcopy(draw.choice(_WRONG_KINDS))
        case "rename" if isinstance(parent, dict):
            parent["another"] = parent.pop(key)
        case "repeat" if isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        case _:
            del parent[key]


def _rows(document: Any, draw: random.Random) -> slice:
    count = len(_columns(document)[0])
    first = draw.randint(0, count)
    return slice(first, min(count, first + draw.choice((1, 1, 3, 12, count))))


_OF_STRUCTURE: tuple[Callable[[Any, random.Random], None], ...] = (
    *(_lose_rows, _repeat_rows, _disorder_rows, _empty_rows, _change_a_column, _change_the_frame),
)

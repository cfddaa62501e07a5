"""The pieces that all parts of the page are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from dash import html

from dashboard.execution import BEGUN, DONE, RUNNING

Part = Any
"""A component of Dash, or text."""
_PILLS: Final = {
    **dict.fromkeys((DONE, "SUCCEEDED", "finished", "promoted", "complete"), "good"),
    **dict.fromkeys((RUNNING, "RUNNING", BEGUN, "open"), "busy"),
    **dict.fromkeys(("failed", "FAILED", "TIMED_OUT", "ABORTED", "interrupted", "died", "not promoted"), "bad"),
}


def pill(word: str) -> Part:
    """A status."""
    return html.Span(word, className=f"pill {tone(word)}")


def tone(word: str) -> str:
    """How a status is coloured."""
    return _PILLS.get(word, "calm")


def table(heads: Sequence[str], rows: Iterable[Sequence[Part]], *, name: str, numbers: Sequence[int] = ()) -> Part:
    """A table that scrolls sideways in its own frame. numbers: columns that are aligned right."""

    def kind(column: int) -> str:
        return "number" if column in numbers else ""

    head = html.Tr([html.Th(cell, className=kind(column)) for column, cell in enumerate(heads)])
    body = [html.Tr([html.Td(cell, className=kind(column)) for column, cell in enumerate(row)]) for row in rows]
    return html.Div(html.Table([html.Thead(head), html.Tbody(body)], id=name), className="frame")


def sentence(words: str) -> Part:
    """What is said where there is nothing to show yet."""
    return html.P(words, className="empty")

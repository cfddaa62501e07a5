"""What the page is answered, where no browser is needed to see it."""

from __future__ import annotations

from dashboard.answers import _few


def test_of_many_objects_that_cannot_be_understood_a_few_are_named() -> None:
    assert _few(["a", "b", "c"]) == ["a", "b", "c"]
    assert _few(["a", "b", "c", "d", "e"]) == ["a", "b", "c", "and 2 more such objects"]

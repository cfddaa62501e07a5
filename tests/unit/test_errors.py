"""Errors on their way from a worker process to the one that reports them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from app.errors import AlreadyServed, MissingProgram, ObjectChanged, ObjectMissing, StockflowError
from app.ingest.chart import PassingFailure, RateLimited

ARGUMENTS: dict[type[StockflowError], tuple[str, ...]] = {
    ObjectMissing: ("market", "runs/r/plan.json"),
    ObjectChanged: ("models", "models/current.json"),
    MissingProgram: ("java", "default-jre"),
    AlreadyServed: ("r",),
}


def every_error(kind: type[StockflowError] = StockflowError) -> Iterator[type[StockflowError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__.startswith("app."):
            yield from every_error(child)


@pytest.mark.parametrize("kind", list(every_error()))
def test_an_error_is_the_same_after_pickling(kind: Any) -> None:
    error = kind(*ARGUMENTS.get(kind, ("what is wrong: what to change",)))
    error.add_note("told by a worker")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    assert type(again) is kind
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


def test_the_wait_that_an_error_was_told_survives_too() -> None:
    for kind in (PassingFailure, RateLimited):
        error = kind("AAPL: 429 Too Many Requests", 7.5)
        again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
        assert (str(again), again.retry_after_s) == ("AAPL: 429 Too Many Requests", 7.5)

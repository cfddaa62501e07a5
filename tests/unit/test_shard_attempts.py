"""Which attempt at a shard is the last one: the one that leaves the judgement to the coverage."""

from __future__ import annotations

import pytest

from app import contract
from app.errors import SettingsError
from app.ingest.run import is_last_attempt


@pytest.mark.parametrize(
    ("attempt", "attempts", "last"),
    [("1", "3", False), ("2", "3", False), ("3", "3", True), ("4", "3", True), ("1", "1", True), ("10", "9", True)],
)
def test_batch_s_last_attempt_is_the_last(attempt: str, attempts: str, last: bool) -> None:
    environ = {contract.ENV_JOB_ATTEMPT: attempt, contract.ENV_SHARD_ATTEMPTS: attempts}
    assert is_last_attempt(environ) is last


@pytest.mark.parametrize("environ", [{}, {contract.ENV_JOB_ATTEMPT: "1"}, {contract.ENV_SHARD_ATTEMPTS: "3"}])
def test_where_nobody_tries_again_the_only_attempt_is_the_last(environ: dict[str, str]) -> None:
    assert is_last_attempt(environ)


def test_a_number_that_is_none_is_told() -> None:
    environ = {contract.ENV_JOB_ATTEMPT: "1", contract.ENV_SHARD_ATTEMPTS: "many"}
    with pytest.raises(SettingsError, match="AWS_BATCH_JOB_ATTEMPT='1' and STOCKFLOW_SHARD_ATTEMPTS='many' must be"):
        is_last_attempt(environ)

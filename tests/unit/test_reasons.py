"""Why an execution failed, in one line, and its exit status."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from embedded.execution import Execution, StateRun
from embedded.phase_logs import PhaseLogs
from embedded.reasons import explain

START = datetime(2026, 3, 16, 20, 0, tzinfo=UTC)


class Services:
    """One job, with what it said."""

    def __init__(self, *said: str) -> None:
        self._said = said

    def describe_jobs(self, **asked: Any) -> dict[str, Any]:
        return {"jobs": [{"container": {"logStreamName": "stream"}}]}

    def get_log_events(self, **asked: Any) -> dict[str, Any]:
        told = [] if "nextToken" in asked else [{"timestamp": 0, "message": line} for line in self._said]
        return {"events": told, "nextForwardToken": "end"}


def failed(name: str, error: str, cause: Any, *said: str, status: str = "FAILED") -> tuple[str, int]:
    """What is told of an execution that failed in a state of a job."""
    state = StateRun(name, START, submitted={"JobId": "job"} if said else {}, error=error)
    state.cause = cause if isinstance(cause, str) else json.dumps(cause)
    released = StateRun("Release", START)
    execution = Execution("arn", "name", status, START, START, (state, released), error, "because")
    return explain(execution, PhaseLogs(lambda service: Services(*said)))


@pytest.mark.parametrize(
    ("state", "error", "cause", "reason", "status"),
    [
        ("CheckCoverage", "UniverseError", {"errorMessage": "no ticker 'NOSUCH'", "errorType": "UniverseError"},
         "UniverseError: no ticker 'NOSUCH'", 4),
        ("TrainModel", "States.TaskFailed", {"FailureReason": "it died, exit code: 7"},
         "States.TaskFailed: it died, exit code: 7", 7),
        ("StreamPredictions", "States.TaskFailed", {"Step": {"Status": {"FailureDetails": {"Message": "no memory"}}}},
         "States.TaskFailed: no memory", 8),
        ("BuildDataset", "States.TaskFailed", {"Container": {"ExitCode": 5, "Reason": "it ended"}},
         "States.TaskFailed: it ended", 5),
        ("BuildDataset", "States.Timeout", "", "States.Timeout: no cause is given", 1),
    ],
)  # fmt: skip
def test_a_failure_is_told_in_the_words_of_its_service(
    state: str, error: str, cause: Any, reason: str, status: int
) -> None:
    assert failed(state, error, cause) == (f"{state}: {reason}", status)


def test_our_own_message_is_told_rather_than_the_service_s() -> None:
    said = ("Traceback", "stockflow: the bars are broken: fetch them again", "a last word")
    reason, status = failed("BuildDataset", "States.TaskFailed", {"Container": {"ExitCode": 6}}, *said)
    assert (reason, status) == ("BuildDataset: the bars are broken: fetch them again", 6)


def test_a_stop_is_told_with_its_cause() -> None:
    assert failed("BuildDataset", "", "", status="ABORTED") == ("the execution was stopped: because", 1)

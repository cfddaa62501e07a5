"""An execution as Step Functions' history tells it: which states it entered, when, how often each was tried, and why
it failed. All of it is asked from the API, as the console does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

ENDED = frozenset({"SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"})
_NOT_TOLD = ("Release", "Notify", "Failed")
"""The machine's own way out, which is not what went wrong."""


@dataclass
class StateRun:
    """One stay in a state. attempts: how often its task was started; submitted: what its last task had started.

    status: running, done, failed, or interrupted: left because of something else. A state that was not done may have
    ended without having been exited. inside: the state that it is in a branch of.
    """

    name: str
    entered: datetime
    exited: datetime | None = None
    ended: datetime | None = None
    status: str = "running"
    inside: StateRun | None = None
    attempts: int = 0
    resource: str = ""
    submitted: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    cause: str = ""

    @property
    def seconds(self) -> float | None:
        """How long it took; None while the execution is in it."""
        return (self.ended - self.entered).total_seconds() if self.ended else None

    def end(self, status: str, at: datetime) -> None:
        """It is over."""
        self.status, self.ended = status, at


@dataclass(frozen=True)
class Execution:
    """A snapshot. states: in the order in which they were entered."""

    arn: str
    name: str
    status: str
    started: datetime
    stopped: datetime | None
    states: tuple[StateRun, ...]
    error: str = ""
    cause: str = ""

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.status in ENDED

    @property
    def retries(self) -> int:
        """Tasks that were started again."""
        return sum(max(0, state.attempts - 1) for state in self.states)

    def failed_state(self) -> StateRun | None:
        """The state whose error the execution ended with, or the last one it was in."""
        told = [state for state in self.states if state.name not in _NOT_TOLD]
        best = [state for state in told if state.error] or [state for state in told if state.exited is None] or told
        return best[-1] if best else None

    def to_json(self) -> dict[str, Any]:
        """What summary.json says of it."""
        return {
            "arn": self.arn,
            "status": self.status,
            "states": [state.name for state in self.states],
            "retries": self.retries,
            "state_s": {state.name: round(state.seconds, 3) for state in self.states if state.seconds is not None},
        }


def read_execution(states: Any, arn: str) -> Execution:
    """The execution as it stands. states: a client of Step Functions."""
    described = states.describe_execution(executionArn=arn)
    pages = states.get_paginator("get_execution_history").paginate(executionArn=arn, maxResults=1000)
    events = [event for page in pages for event in page["events"]]
    stopped = described.get("stopDate")
    return Execution(
        arn=arn,
        name=described["name"],
        status=described["status"],
        started=described["startDate"],
        stopped=stopped,
        states=tuple(read_states(events, stopped)),
        error=described.get("error") or "",
        cause=described.get("cause") or "",
    )


def read_states(events: Iterable[Mapping[str, Any]], stopped: datetime | None = None) -> Iterator[StateRun]:
    """The stays in states, from the events of a history. stopped: when the execution ended."""
    runs: dict[int, StateRun] = {}
    """By the id of an event, the stay it belongs to: an event names the one before it in its branch."""
    found: list[StateRun] = []
    for event in sorted(events, key=lambda event: int(event["id"])):
        run = runs.get(int(event.get("previousEventId", 0)))
        if entered := event.get("stateEnteredEventDetails"):
            inside = run if run is None or run.ended is None else run.inside
            run = StateRun(entered["name"], event["timestamp"], inside=inside)
            found.append(run)
        if exited := event.get("stateExitedEventDetails"):
            run = next((r for r in reversed(found) if r.name == exited["name"] and r.exited is None), run)
        elif event.get("type") == "ParallelStateFailed" and run is not None:  # told with the branch that failed
            run.end("failed", run.ended or event["timestamp"])
            run = run.inside
            if run is not None:
                run.end("failed", event["timestamp"])
        if run is not None:
            runs[int(event["id"])] = run
            _tell(run, event)
    for run in found:
        if run.ended is None and (end := run.inside.ended if run.inside else stopped):
            run.end("failed" if run.error else "interrupted", end)
    yield from found


def _tell(run: StateRun, event: Mapping[str, Any]) -> None:
    """Add what one event says."""
    if scheduled := event.get("taskScheduledEventDetails"):
        run.attempts += 1
        run.resource = f"{scheduled['resourceType']}:{scheduled['resource']}"
        run.parameters = json.loads(scheduled["parameters"])
        run.submitted = {}
        run.error = run.cause = ""
    if submitted := event.get("taskSubmittedEventDetails"):
        run.submitted = json.loads(submitted["output"])
    for name in ("taskFailedEventDetails", "taskTimedOutEventDetails", "executionFailedEventDetails"):
        if failed := event.get(name):
            run.error, run.cause = failed.get("error", ""), failed.get("cause", "")
    if "stateExitedEventDetails" in event:
        run.exited = event["timestamp"]
        run.end("failed" if run.error or run.status == "failed" else "done", run.exited)

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
    """One stay in a state. attempts: how often its task was started; submitted: what its last task had started."""

    name: str
    entered: datetime
    exited: datetime | None = None
    attempts: int = 0
    resource: str = ""
    submitted: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    cause: str = ""

    @property
    def seconds(self) -> float | None:
        """How long it took; None while the execution is in it."""
        return (self.exited - self.entered).total_seconds() if self.exited else None


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
    return Execution(
        arn=arn,
        name=described["name"],
        status=described["status"],
        started=described["startDate"],
        stopped=described.get("stopDate"),
        states=tuple(read_states(events)),
        error=described.get("error") or "",
        cause=described.get("cause") or "",
    )


def read_states(events: Iterable[Mapping[str, Any]]) -> Iterator[StateRun]:
    """The stays in states, from the events of a history."""
    runs: dict[int, StateRun] = {}
    """By the id of an event, the stay it belongs to: an event names the one before it in its branch."""
    found: list[StateRun] = []
    for event in sorted(events, key=lambda event: int(event["id"])):
        run = runs.get(int(event.get("previousEventId", 0)))
        if entered := event.get("stateEnteredEventDetails"):
            run = StateRun(entered["name"], event["timestamp"])
            found.append(run)
        if exited := event.get("stateExitedEventDetails"):
            run = next((r for r in reversed(found) if r.name == exited["name"] and r.exited is None), run)
        if run is not None:
            runs[int(event["id"])] = run
            _tell(run, event)
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

"""A stand-in for Step Functions: executions whose histories are made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:flow"
START = datetime(2026, 3, 24, 20, 0, tzinfo=UTC)


class FakeStates:
    """The calls of boto3's client that the dashboard makes. asked: which, in order."""

    def __init__(self, error: Exception | None = None) -> None:
        self.executions: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.error = error

    def add(self, name: str, states: list[str], *, status: str, text: str = "{}", error: str = "") -> None:
        """An execution that entered these states, one a second; the last one runs, or failed, unless it SUCCEEDED."""
        events: list[dict[str, Any]] = []

        def tell(**details: Any) -> None:
            at = START + timedelta(seconds=len(events))
            events.append({"id": len(events) + 1, "previousEventId": len(events), "timestamp": at, **details})

        for state in states:
            tell(stateEnteredEventDetails={"name": state})
            if state == states[-1] and error:
                tell(taskFailedEventDetails={"error": error, "cause": "as AWS tells it"})
            elif state != states[-1] or status == "SUCCEEDED":
                tell(stateExitedEventDetails={"name": state})
        ended = {} if status == "RUNNING" else {"stopDate": START + timedelta(seconds=90)}
        self.executions[f"{MACHINE.replace('stateMachine', 'execution')}:{name}"] = {
            **{"name": name, "status": status, "startDate": START + timedelta(minutes=len(self.executions)), **ended},
            **{"input": text, "events": events, "error": error, "cause": "as AWS tells it" if error else ""},
        }

    def list_executions(self, **call: Any) -> dict[str, Any]:
        """In the order in which they were begun."""
        self._ask("list_executions")
        assert call["stateMachineArn"] == MACHINE
        return {"executions": [{"executionArn": arn, **found} for arn, found in self.executions.items()]}

    def describe_execution(self, *, executionArn: str) -> dict[str, Any]:  # noqa: N803
        """One of them."""
        self._ask("describe_execution")
        return self.executions[executionArn]

    def get_paginator(self, name: str) -> FakeStates:
        """This object: the only pages are those of a history."""
        assert name == "get_execution_history"
        return self

    def paginate(self, *, executionArn: str, **_: Any) -> Iterator[dict[str, Any]]:  # noqa: N803
        """One page."""
        self._ask("get_execution_history")
        yield {"events": self.executions[executionArn]["events"]}

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error

"""Which lines of which log streams are an execution's own, and that each is told once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from embedded.execution import Execution, StateRun
from embedded.phase_logs import PhaseLogs

START = datetime(2026, 3, 16, 20, 0, tzinfo=UTC)
PAGE = 2


class Streams:
    """CloudWatch Logs with streams of (second, message), and a Lambda that writes to them; pages are short."""

    def __init__(self) -> None:
        self.streams: dict[str, list[tuple[float, str]]] = {}
        self.created: dict[str, float] = {}

    def write(self, stream: str, *events: tuple[float, str]) -> None:
        self.created.setdefault(stream, events[0][0])
        self.streams.setdefault(stream, []).extend(events)

    def get_function_configuration(self, **asked: str) -> dict[str, str]:
        return {"FunctionName": asked["FunctionName"]}

    def get_paginator(self, operation: str) -> Streams:
        assert operation == "describe_log_streams"
        return self

    def paginate(self, **asked: str) -> list[dict[str, Any]]:
        return [
            {"logStreams": [{"logStreamName": name, "creationTime": millis(at)} for name, at in self.created.items()]}
        ]

    def get_log_events(self, **asked: Any) -> dict[str, Any]:
        start = int(asked.get("nextToken", 0))
        events = self.streams[asked["logStreamName"]][start : start + PAGE]
        told = [{"timestamp": millis(at), "message": message} for at, message in events]
        return {"events": told, "nextForwardToken": str(start + len(events))}


def millis(second: float) -> int:
    return int((START.timestamp() + second) * 1000)


def execution(entered: float, ended: float | None) -> Execution:
    state = StateRun("ValidateInput", at(entered), resource="lambda:invoke", parameters={"FunctionName": "f"})
    if ended is not None:
        state.end("done", at(ended))
    return Execution("arn", "name", "RUNNING", START, None, (state,))


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def lines(logs: PhaseLogs, *window: float | None) -> list[str]:
    entered, ended = window
    assert entered is not None
    return [line for _, line in logs.new_lines(execution(entered, ended))]


def test_a_function_s_lines_for_other_executions_are_not_told() -> None:
    streams = Streams()
    streams.write("before", (1, "earlier"))
    streams.write("own", (10, "said"), (11.2, "END"), (20, "said to another in the same stream"))
    streams.write("after", (20, "later"))
    assert lines(PhaseLogs(lambda service: streams), 10, 11) == ["said", "END"]
    assert lines(PhaseLogs(lambda service: streams), 20, None) == ["later"]


def test_a_long_stream_is_told_whole_and_each_line_once() -> None:
    streams = Streams()
    logs = PhaseLogs(lambda service: streams)
    streams.write("own", *((10, f"line {number}") for number in range(2 * PAGE + 1)))
    assert lines(logs, 10, None) == [f"line {number}" for number in range(2 * PAGE + 1)]
    assert lines(logs, 10, None) == []
    streams.write("own", (11, "one more"))
    assert lines(logs, 10, 11) == ["one more"]

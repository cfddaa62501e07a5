"""An execution of a state machine: which states it goes through, and what its tasks are asked for.

Waiting, retries and time-outs are left out: a task's answer is its last one. What the definition does not use is
refused, as in tests.infra.asl.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.infra.asl import AslError, Scope, path_value, payload

State = Mapping[str, Any]


class Task(NamedTuple):
    """A task that was started: the name of its state, its resource and its parameters."""

    state: str
    resource: str
    parameters: Any


Answer = Callable[[Task], Any]
"""A task's result; raises TaskFailed."""


class TaskFailed(Exception):
    """A task has failed, after all its retries."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error, self.cause = error, cause


@dataclass
class Execution:
    """A walk through a state machine. context: what ``$$`` is.

    visited: names of the states in order, the branches of a Parallel one after the other. carried_bytes: size of the
    largest input of a state. status: SUCCEEDED, or FAILED with error and cause.
    """

    definition: State
    answer: Answer
    context: Any
    visited: list[str] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    carried_bytes: int = 0
    status: str = ""
    error: str = ""
    cause: str = ""
    output: Any = None

    def run(self, data: Any) -> Execution:
        """Go from the first state to the last one; returns itself."""
        try:
            self.output = self._run_states(self.definition, data)
            self.status = "SUCCEEDED"
        except TaskFailed as exc:
            self.status, self.error, self.cause = "FAILED", exc.error, exc.cause
        return self

    def _run_states(self, machine: State, data: Any) -> Any:
        name = machine["StartAt"]
        while name:
            text = json.dumps(data)
            self.visited.append(name)
            self.carried_bytes = max(self.carried_bytes, len(text.encode()))
            name, data = self._run_state(name, machine["States"][name], json.loads(text))
        return data

    def _run_state(self, name: str, state: State, data: Any) -> tuple[str, Any]:
        """The name of the state that follows, empty after the last one, and what it gets."""
        kind = state["Type"]
        if unknown := state.keys() - {"Type"} - _FIELDS[kind]:
            raise AslError(f"state {name}: {', '.join(sorted(unknown))} is not known here")
        scope = Scope(data, self.context)
        match kind:
            case "Succeed":
                return "", data
            case "Fail":
                error = state["Error"] if "Error" in state else path_value(state["ErrorPath"], scope)
                raise TaskFailed(error, path_value(state["CausePath"], scope))
            case "Choice":
                return _choice(state, scope), data
            case "Pass":
                return _following(state), _place(state["Result"], state, data)
        try:
            result = self._run_task(name, state, scope) if kind == "Task" else self._run_branches(state, data)
        except TaskFailed as failure:
            return _catch(state, failure, data)
        if "ResultSelector" in state:
            result = payload(state["ResultSelector"], Scope(result, self.context))
        placed = Scope(_place(result, state, data), self.context)
        return _following(state), path_value(state.get("OutputPath", "$"), placed)

    def _run_branches(self, state: State, data: Any) -> list[Any]:
        return [self._run_states(branch, data) for branch in state["Branches"]]

    def _run_task(self, name: str, state: State, scope: Scope) -> Any:
        self.tasks.append(Task(name, state["Resource"], payload(state["Parameters"], scope)))
        return self.answer(self.tasks[-1])


_RESULT = {"ResultSelector", "ResultPath", "OutputPath", "Catch", "Next", "End"}
_FIELDS: Mapping[str, set[str]] = {
    "Task": {"Resource", "Parameters", "TimeoutSeconds", "Retry", *_RESULT},
    "Parallel": {"Branches", *_RESULT},
    "Choice": {"Choices", "Default"},
    "Pass": {"Result", "ResultPath", "Next", "End"},
    "Succeed": set(),
    "Fail": {"Error", "ErrorPath", "CausePath"},
}
_TESTS: Mapping[str, type] = {"BooleanEquals": bool, "NumericEquals": int, "StringEquals": str}


def _following(state: State) -> str:
    if ("Next" in state) == ("End" in state):
        raise AslError("a state either ends the machine or says which one follows")
    return str(state.get("Next", ""))


def _choice(state: State, scope: Scope) -> str:
    for rule in state["Choices"]:
        if all(_holds(test, scope) for test in rule.get("And", [rule])):
            return str(rule["Next"])
    return str(state["Default"])


def _holds(rule: Mapping[str, Any], scope: Scope) -> bool:
    (test,) = rule.keys() - {"Variable", "Next"}
    value = path_value(rule["Variable"], scope)
    if type(value) is not _TESTS.get(test):
        raise AslError(f"{test} of {rule['Variable']}={value!r} is not known here")
    return bool(value == rule[test])


def _catch(state: State, failure: TaskFailed, data: Any) -> tuple[str, Any]:
    for rule in state.get("Catch", ()):
        if {"States.ALL", failure.error} & set(rule["ErrorEquals"]):
            return rule["Next"], _place({"Error": failure.error, "Cause": failure.cause}, rule, data)
    raise failure


def _place(result: Any, state: State, data: Any) -> Any:
    """The state's data with the result where ResultPath says."""
    path = state.get("ResultPath", "$")
    if path is None or path == "$":
        return data if path is None else result
    root, _, name = path.partition(".")
    if root != "$" or "." in name:
        raise AslError(f"ResultPath {path} is not known here")
    return {**data, name: result}

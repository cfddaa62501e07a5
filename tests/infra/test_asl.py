"""The evaluator itself: by the examples and rules of https://states-language.net/spec.html."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.infra.asl import AslError, Scope, expression, payload
from tests.infra.execution import Execution, Task, TaskFailed

DATA = {"name": "Foo", "n": 7, "yes": True, "nothing": None, "list": [{"a": 1}, {"a": 2}], "text": r"it's {} \n"}
CONTEXT = {"Execution": {"Id": "arn:x", "Name": "evening"}}
SCOPE = Scope(DATA, CONTEXT)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$", DATA),
        ("$.list[1].a", 2),
        ("$.nothing", None),
        ("$$.Execution.Id", "arn:x"),
        ("States.Format('Hello, {} {}', $.name, $.n)", "Hello, Foo 7"),
        ("States.Format('{}{}{}', $.yes, $.nothing, 1.5)", "truenull1.5"),
        (r"States.Format('\{{}\}', $.name)", "{Foo}"),
        (r"States.Format('it\'s a \\ {}', 'b\'c')", r"it's a \ b'c"),
        ("States.Format('a\nb')", "a\nb"),
        ("States.Format('{}', $.text)", r"it's {} \n"),
        ("States.Array()", []),
        (r"States.Array( 'a,b' , $.n,States.Array('\{\'\}'), null )", ["a,b", 7, ["{'}"], None]),
        ("States.Base64Encode('Data to encode')", "RGF0YSB0byBlbmNvZGU="),
        ("States.Format('x={}', States.Base64Encode($.name))", "x=Rm9v"),
        ("States.JsonToString($.list)", '[{"a":1},{"a":2}]'),
    ],
)
def test_an_expression_has_the_value_that_the_language_gives_it(text: str, value: Any) -> None:
    assert expression(text, SCOPE) == value


def test_a_uuid_is_another_one_each_time() -> None:
    first, second = (expression("States.UUID()", SCOPE) for _ in range(2))
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", first)
    assert first != second


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("$.missing", "leads to 0 values"),
        ("$.list[*].a", "leads to 2 values"),
        ("$$.Execution.Missing", "leads to 0 values"),
        ("name", "neither a path nor"),
        ("'name'", "neither a path nor"),
        ("States.Hash($.name, 'MD5')", "States.Hash is not known"),
        ("States.Format('{}')", "1 places for 0 values"),
        ("States.Format('x', $.n)", "0 places for 1 values"),
        ("States.Format('{\"a\": {}}', $.n)", "needs a backslash"),
        (r"States.Format('a\nb')", "escapes nothing"),
        ("States.Format('{}', $.list)", "is plain"),
        ("States.Format($.text, 1)", "no quoted text"),
        ("States.Array('a' 'b')", "no comma"),
        ("States.Array('a'", "no comma"),
        ("States.Array('a)", "no argument"),
        ("States.UUID() ", "left over"),
        (f"States.Base64Encode('{'x' * 10_001}')", "10,000 characters"),
    ],
)
def test_what_step_functions_would_fail_on_is_refused(text: str, told: str) -> None:
    with pytest.raises(AslError, match=re.escape(told)):
        expression(text, SCOPE)


def test_a_payload_is_filled_in_at_every_depth_and_nothing_else_of_it_changes() -> None:
    template = {"a.$": "$.n", "b": [{"c.$": "$$.Execution.Name"}, "$.n"], "d": {"e": None, "f$": 1}}
    assert payload(template, SCOPE) == {"a": 7, "b": [{"c": "evening"}, "$.n"], "d": {"e": None, "f$": 1}}
    with pytest.raises(AslError, match="a stands twice"):
        payload({"a": 1, "a.$": "$.n"}, SCOPE)


# --- the walk -----------------------------------------------------------------------------------


def walk(*states: dict[str, Any], answer: Any = None, data: Any = None) -> Execution:
    """An execution of states in a row, named by letters."""
    names = "ABCDEFG"[: len(states)]
    following: list[dict[str, Any]] = [*({"Next": name} for name in names[1:]), {"End": True}]
    chained = [
        state if {"Next", "End"} & state.keys() or state["Type"] in {"Choice", "Succeed", "Fail"} else state | more
        for state, more in zip(states, following, strict=True)
    ]
    definition = {"StartAt": "A", "States": dict(zip(names, chained, strict=True))}

    def answered(task: Task) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Execution(definition, answered, CONTEXT).run({"n": 1} if data is None else data)


TASK: dict[str, Any] = {"Type": "Task", "Resource": "r", "Parameters": {"of.$": "$.n"}}
PASS: dict[str, Any] = {"Type": "Pass", "Result": {"id": 3}, "ResultPath": "$.made"}


@pytest.mark.parametrize(
    ("rules", "output"),
    [
        ({}, {"x": {"y": 5}}),
        ({"ResultPath": None}, {"n": 1}),
        ({"ResultPath": "$.got"}, {"n": 1, "got": {"x": {"y": 5}}}),
        ({"ResultSelector": {"z.$": "$.x.y"}, "ResultPath": "$.got"}, {"n": 1, "got": {"z": 5}}),
        ({"OutputPath": "$.x"}, {"y": 5}),
        ({"ResultSelector": {"z.$": "$.x.y"}, "OutputPath": "$.z"}, 5),
    ],
)
def test_a_result_is_selected_then_placed_then_cut_out(rules: dict[str, Any], output: Any) -> None:
    done = walk(TASK | rules, answer={"x": {"y": 5}})
    assert (done.status, done.output) == ("SUCCEEDED", output)
    assert done.tasks == [("A", "r", {"of": 1})]


def test_a_branch_sees_the_input_and_its_output_is_an_element() -> None:
    branch = {"StartAt": "P", "States": {"P": PASS | {"End": True}}}
    parallel = {"Type": "Parallel", "Branches": [branch, branch], "ResultSelector": {"first.$": "$[0]"}}
    done = walk(parallel | {"OutputPath": "$.first"}, {"Type": "Succeed"})
    assert done.visited == ["A", "P", "P", "B"]
    assert done.output == {"n": 1, "made": {"id": 3}}


def test_a_choice_takes_the_first_rule_that_holds() -> None:
    choice = {"Type": "Choice", "Default": "B", "Choices": [{"Variable": "$.n", "NumericEquals": 1, "Next": "C"}]}
    assert walk(choice, PASS, {"Type": "Succeed"}).visited == ["A", "C"]
    assert walk(choice, PASS, {"Type": "Succeed"}, data={"n": 2}).visited == ["A", "B", "C"]
    for wrong in ({"n": True}, {"n": "1"}):
        with pytest.raises(AslError, match="is not known here"):
            walk(choice, PASS, {"Type": "Succeed"}, data=wrong)


def test_a_failure_is_caught_with_the_input_or_ends_the_execution() -> None:
    failure = TaskFailed("Broken", "why")
    rule = {"ErrorEquals": ["Broken"], "ResultPath": "$.failure", "Next": "B"}
    fail = {"Type": "Fail", "ErrorPath": "$.failure.Error", "CausePath": "$.failure.Cause"}
    done = walk(TASK | {"Catch": [rule], "Next": "B"}, fail, answer=failure)
    assert (done.visited, done.status, done.error, done.cause) == (["A", "B"], "FAILED", "Broken", "why")
    other = walk(TASK | {"Catch": [rule | {"ErrorEquals": ["Other"]}], "Next": "B"}, fail, answer=failure)
    assert (other.visited, other.status) == (["A"], "FAILED")


@pytest.mark.parametrize(
    "state",
    [
        TASK | {"InputPath": "$.n"},
        PASS | {"ResultPath": "$.a.b"},
        PASS | {"ResultPath": "x"},
        {"Type": "Choice", "Default": "A", "Choices": [{"Variable": "$.n", "IsPresent": True, "Next": "A"}]},
        PASS | {"Next": "A", "End": True},
    ],
)
def test_what_the_walk_does_not_know_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(AslError):
        walk(state)

"""The EMR step's script: its arguments are the run's environment, and options of serve."""

from __future__ import annotations

import base64
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

Read = Callable[[Sequence[str]], tuple[dict[str, str], list[str]]]


@pytest.fixture
def read_arguments(monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "emr"))
    found: Read = importlib.import_module("stream").read_arguments
    return found


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_variables_are_taken_and_the_rest_goes_to_serve(read_arguments: Read) -> None:
    settings = '{"serving": {"partitions": 6}}'
    words = ["--env", "STOCKFLOW_RUN_ID=r-1", "--checkpoint", "hdfs:///streams", "--env=STOCKFLOW_NOW="]
    words += ["--env-base64", f"STOCKFLOW_SETTINGS={encoded(settings)}", "--set", "serving.trigger_s=5"]
    variables, rest = read_arguments(words)
    assert variables == {"STOCKFLOW_RUN_ID": "r-1", "STOCKFLOW_NOW": "", "STOCKFLOW_SETTINGS": settings}
    assert rest == ["--checkpoint", "hdfs:///streams", "--set", "serving.trigger_s=5"]


def test_a_value_may_hold_an_equals_sign(read_arguments: Read) -> None:
    assert read_arguments(["--env", "A=b=c"]) == ({"A": "b=c"}, [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env", "STOCKFLOW_RUN_ID"], "argument --env: 'STOCKFLOW_RUN_ID' is not of the form NAME=VALUE"),
        (["--env-base64", 'A={"b": 1}'], "argument --env-base64: the value of A is not text in base64"),
    ],
)
def test_a_malformed_variable_is_named(
    read_arguments: Read, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_arguments(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err

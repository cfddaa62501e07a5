"""The script that SageMaker's toolkit starts: where a rank's reason goes."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "docker" / "train.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_script", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_first_reason_of_a_rank_is_kept_and_all_is_printed(script: ModuleType, tmp_path: Path) -> None:
    reason, printed = tmp_path / "failure", io.StringIO()
    first, second = script.Stderr(printed, reason), script.Stderr(printed, reason)
    print("a warning", file=first, flush=True)
    assert not reason.exists()
    print("rank 1: the loss is NaN", file=first)
    print("rank 0: lost rank 1", file=second)
    assert reason.read_text() == "rank 1: the loss is NaN"
    assert printed.getvalue() == "a warning\nrank 1: the loss is NaN\nrank 0: lost rank 1\n"


def test_a_reason_that_cannot_be_kept_is_printed_all_the_same(script: ModuleType, tmp_path: Path) -> None:
    printed = io.StringIO()
    print("rank 0: no windows", file=script.Stderr(printed, tmp_path / "nowhere" / "failure"))
    assert printed.getvalue() == "rank 0: no windows\n"

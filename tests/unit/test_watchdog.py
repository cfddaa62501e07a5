"""A rank that does not get on ends itself, whatever its main thread waits for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app import contract
from app.errors import TrainingError
from app.training.watchdog import Watchdog

_ROOT = Path(__file__).parents[2]
PREPARED = """
import threading, time
from app.training.watchdog import Watchdog
from app.errors import TrainingError

with Watchdog(3, {stall_s}) as watchdog:
    {body}
print("went on")
"""


def ended(body: str, stall_s: float = 0.5) -> subprocess.CompletedProcess[str]:
    """A process that does this under a watchdog."""
    code = PREPARED.format(body=body, stall_s=stall_s)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    "body",
    [
        "watchdog.beat('epoch 2'); time.sleep(60)",
        "watchdog.beat('epoch 2'); threading.Event().wait()",
        "watchdog.beat('epoch 2')\n    while True: pass",
    ],
    ids=["sleeps", "waits", "spins"],
)
def test_a_rank_that_stalls_ends_with_one_line_that_says_in_what(body: str) -> None:
    done = ended(body)
    assert done.returncode == TrainingError.exit_code
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("rank 3: nothing got on for ")
    assert " s in epoch 2: this rank, another one or the network hangs; " in line
    assert line.endswith("or raise training.stall_timeout_s if it is slow")


def test_a_rank_that_stalls_before_its_first_beat_ends_too() -> None:
    done = ended("time.sleep(60)")
    assert done.returncode == TrainingError.exit_code
    assert "in start: " in done.stderr


def test_a_rank_that_beats_lives_longer_than_the_timeout() -> None:
    done = ended("for i in range(9): time.sleep(0.3); watchdog.beat(f'step {i}')", stall_s=2)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_a_rank_that_gets_on_with_what_it_does_is_still_said_to_do_that() -> None:
    body = "watchdog.beat('read')\n    for i in range(9): time.sleep(0.3); watchdog.still()\n    time.sleep(60)"
    done = ended(body, stall_s=2)
    assert done.returncode == TrainingError.exit_code
    assert done.stderr.startswith("rank 3: nothing got on for 2 s in read: ")


def test_a_rank_that_waits_for_the_others_to_come_ends_too() -> None:
    code = (
        "import time; from app.training import worker; worker._LEAST_MEETING_S = 0.5;"
        "worker.hvd.init = lambda: time.sleep(100); worker.main()"
    )
    settings = {contract.ENV_SETTINGS: '{"training":{"stall_timeout_s":1}}', contract.ENV_RANK: "5"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=_ROOT,
        env={**os.environ, **settings, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == TrainingError.exit_code
    assert "rank 5: nothing got on for 1 s in meeting the other ranks: " in done.stderr


def test_what_comes_after_may_take_its_time() -> None:
    with Watchdog(0, 0.2):
        pass
    time.sleep(0.6)  # this very process would be gone


def test_an_error_under_it_is_that_of_the_rank() -> None:
    done = ended("raise TrainingError('too few windows')", stall_s=5)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("TrainingError: too few windows")

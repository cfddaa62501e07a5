"""mpirun as a child: what it is told, and the one line that is made of its end."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from app import contract
from app.errors import MissingProgram, ObjectMissing, TrainingError
from app.processes import ends_with_parent
from app.settings import Place, Settings, changed, load
from app.storage import Bucket
from app.training.launch import check_gpus, mpirun_command, run_training, why_ended, worker_command
from app.training.publish import make_model_id
from tests.fakes import FakeS3
from tests.models import plain_spec

PLACE = Place(market_bucket="k", model_bucket="m", predictions_bucket="p", run_id="r", dataset_run="d")
SPEC = plain_spec(60)
KILLED = """\
--------------------------------------------------------------------------
Primary job  terminated normally, but 1 process returned
a non-zero exit code. Per user-direction, the job has been aborted.
--------------------------------------------------------------------------
--------------------------------------------------------------------------
mpirun noticed that process rank 1 with PID 4242 on node ip-10-0-0-7 exited on signal 9 (Killed).
--------------------------------------------------------------------------
"""
FAILED = """\
rank 1: the loss is nan in epoch 1 at step 8: look at the bars
--------------------------------------------------------------------------
mpirun detected that one or more processes exited with non-zero status, thus causing
the job to be terminated. The first process to do so was:

  Process name: [[29464,1],1]
  Exit code:    7
--------------------------------------------------------------------------
"""


class Mpirun:
    """A stand-in for mpirun that does what a test says; it writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.environ = {"PATH": f"{folder}:{os.environ['PATH']}", "STOCKFLOW_RUN_ID": "r"}

    def does(self, script: str) -> None:
        """Run this instead."""
        program = self._folder / "mpirun"
        told = f'printf "%s\\n" "$@" > {shlex.quote(str(self._folder))}/arguments\nenv > {self._folder}/environ\n'
        program.write_text(f"#!/bin/sh\n{told}{script}\n")
        program.chmod(0o755)

    @property
    def arguments(self) -> list[str]:
        """What it was called with."""
        return (self._folder / "arguments").read_text().splitlines()

    @property
    def told(self) -> dict[str, str]:
        """The variables that it was given."""
        lines = (self._folder / "environ").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture
def mpirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: FakeS3) -> Mpirun:
    """mpirun, and an S3 with a dataset of run d."""
    found = Mpirun(tmp_path)
    monkeypatch.setenv("PATH", found.environ["PATH"])
    Bucket("m").put_json(contract.dataset_spec_key("d"), SPEC.to_json())
    return found


def train(mpirun: Mpirun, *flags: str) -> tuple[dict[str, Any], list[tuple[int, int, str]]]:
    """The phase's result, and what was reported on the way."""
    reports: list[tuple[int, int, str]] = []
    result = run_training(
        PLACE,
        changed(Settings(), *flags),
        mpirun.environ,
        lambda done, total, note: reports.append((done, total, note)),
    )
    return result, reports


def test_the_result_is_what_the_model_left_and_progress_is_passed_on(
    mpirun: Mpirun, capfd: pytest.CaptureFixture[str]
) -> None:
    mpirun.does("""echo '{"done": 1, "total": 2, "note": "epochs"}'\necho '{"done": 1}'\necho epoch=1 loss=0.5""")
    model_id = make_model_id("d", SPEC, changed(Settings(), "training.ranks=3"))
    Bucket("m").put_json(contract.model_key(model_id, contract.MODEL_METRICS), {"windows_train": 12})
    result, reports = train(mpirun, "training.ranks=3")
    assert result == {
        "rows": 12,
        "where": f"s3://m/models/{model_id}/",
        "model_id": model_id,
        "metrics": {"windows_train": 12},
    }
    assert reports == [(1, 2, "epochs")]
    assert capfd.readouterr().err == '{"done": 1}\nepoch=1 loss=0.5\n'


def test_ranks_are_started_as_told_and_know_the_settings(mpirun: Mpirun) -> None:
    mpirun.does("exit 0")
    with pytest.raises(ObjectMissing):  # nothing trained
        train(mpirun, "training.ranks=3", "training.seed=11")
    arguments = mpirun.arguments
    assert arguments[arguments.index("-np") + 1] == "3"
    assert arguments[-len(worker_command()) :] == worker_command()
    assert worker_command() == [*ends_with_parent(), sys.executable, "-m", "app.training.worker"]
    assert load(mpirun.told) == changed(Settings(), "training.ranks=3", "training.seed=11")
    assert mpirun.told[contract.ENV_RUN_ID] == "r"


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        (FAILED, 7, "rank 1: the loss is nan in epoch 1 at step 8: look at the bars"),
        (KILLED, 137, "rank 1 on ip-10-0-0-7 was killed by signal 9: start the phase again, it goes on"),
        (f"rank 0: no dataset\n{KILLED}", 3, "rank 0: no dataset"),
        ("something else\n----\n", 1, "something else"),
        ("", 1, "no message"),
    ],
)
def test_a_job_that_fails_ends_in_one_line_with_its_status_and_reason(
    mpirun: Mpirun, capfd: pytest.CaptureFixture[str], said: str, status: int, reason: str
) -> None:
    mpirun.does(f"printf %s {shlex.quote(said)} >&2; exit {status}")
    with pytest.raises(TrainingError) as caught:
        train(mpirun)
    assert str(caught.value) == f"training ended with status {status}: {reason}"
    assert capfd.readouterr().err.strip() == said.strip()


@pytest.mark.parametrize("mpirun", ["mpirun", "prterun"])
def test_the_killed_rank_is_found_in_what_open_mpi_of_any_age_says(mpirun: str) -> None:
    line = f"{mpirun} noticed that process rank 12 with PID 0 on node n exited on signal 11 (Segmentation fault)."
    assert why_ended(["", line]) == "rank 12 on n was killed by signal 11: start the phase again, it goes on"


def test_an_mpirun_that_is_killed_itself_says_that_the_phase_goes_on(mpirun: Mpirun) -> None:
    mpirun.does("kill -9 $$")
    with pytest.raises(TrainingError, match=r"^mpirun was killed by signal 9: start the phase again, it goes on$"):
        train(mpirun)


def test_a_job_that_takes_too_long_is_ended_with_all_it_started(mpirun: Mpirun, tmp_path: Path) -> None:
    mpirun.does(f"sleep 60 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(
        TrainingError, match=r"^training ran longer than training.timeout_s=0.5: raise it or train less$"
    ):
        train(mpirun, "training.timeout_s=0.5")
    with pytest.raises(ProcessLookupError):
        _wait_gone(int((tmp_path / "child").read_text()))


def test_what_ranks_leave_in_their_temporary_folder_is_cleared_away(
    mpirun: Mpirun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mpirun.does('touch "$TMPDIR/left"; kill -9 $$')
    with pytest.raises(TrainingError):
        train(mpirun)
    assert Path(mpirun.told["TMPDIR"]).parent == tmp_path
    assert not Path(mpirun.told["TMPDIR"]).exists()


def test_without_mpirun_or_a_dataset_nothing_is_started(
    mpirun: Mpirun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mpirun.does(f"touch {tmp_path}/started")
    Bucket("m").delete(contract.dataset_spec_key("d"))
    with pytest.raises(ObjectMissing, match=r"s3://m/datasets/d/spec\.json does not exist"):
        train(mpirun)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingProgram, match="openmpi-bin"):
        train(mpirun)
    assert not (tmp_path / "started").exists()


def test_idle_ranks_of_one_machine_yield_and_are_bound_to_no_core() -> None:
    command = mpirun_command("/usr/bin/mpirun", 4)
    assert command[0] == "/usr/bin/mpirun"
    assert ("--allow-run-as-root" in command) == (os.geteuid() == 0)
    text = " ".join(command)
    assert "-np 4 --oversubscribe --bind-to none" in text
    assert "--mca mpi_yield_when_idle 1" in text


def _wait_gone(pid: int) -> None:
    """Raise ProcessLookupError once a process is gone."""
    for _ in range(100):
        os.kill(pid, 0)
        time.sleep(0.1)


@pytest.mark.parametrize(("ranks", "gpus"), [(1, 0), (4, 0), (1, 1), (4, 4), (1, 8)])
def test_each_rank_has_a_gpu_of_its_own_or_its_host_has_none(ranks: int, gpus: int) -> None:
    check_gpus(ranks, gpus, "here")


def test_ranks_that_would_share_a_gpu_are_refused() -> None:
    told = r"^here has 2 ranks and 1 GPU: lower training\.ranks so that each has one of its own, or set CUDA_VISIBLE"
    with pytest.raises(TrainingError, match=told):
        check_gpus(2, 1, "here")

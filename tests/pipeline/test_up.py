"""`stockflow up` and what an operator does with it, by the command line alone; and that its state outlives it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from embedded.aws.account import client
from embedded.daemon import LOG, MARKER, attach
from tests.pipeline.stack import FAST, until

MARKET = ("--sim", "tickers=4", "--sim", "sessions=5")
INGEST = json.dumps({"phases": ["ingest"], "settings": {"ingest": FAST["ingest"]}})
SLOW = ("--latency-ms", "3000")


@dataclass(frozen=True)
class Operator:
    folder: Path
    state: Path

    def stockflow(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments, "--dir", str(self.folder)],
            input=text,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def must(self, *arguments: str, text: str | None = None) -> str:
        done = self.stockflow(*arguments, text=text)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def up(self, *flags: str) -> dict[str, str]:
        """What it exports."""
        said = self.must("up", *MARKET, *flags, "--state", str(self.state))
        return dict(re.findall(r"^export (\w+)=(.*)$", said, re.MULTILINE))

    def start(self, *, follow: bool = False) -> tuple[str, str]:
        """Name of a new execution, and what was said of it."""
        said = self.must("start", "--input", "-", *(["--follow"] if follow else []), text=INGEST)
        return said.splitlines()[0].rpartition(":")[2], said

    def client(self, service: str) -> Any:
        return client(service, attach(self.folder).url)

    def statuses(self) -> dict[str, str]:
        """Of all executions, by name."""
        machine = attach(self.folder).machine
        listed = self.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"]
        return {execution["name"]: execution["status"] for execution in listed}


@dataclass(frozen=True)
class FirstLife:
    """What an operator saw until the stack went down."""

    exported: dict[str, str]
    machines: list[str]
    up_again: subprocess.CompletedProcess[str]
    nothing_yet: str
    no_json: str
    name: str
    followed: str
    status: str
    logs: str
    stop_of_ended: str
    wrong: subprocess.CompletedProcess[str]
    down: str


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("operator")
    operator = Operator(folder / "up", folder / "state")
    yield operator
    operator.stockflow("down")


@pytest.fixture(scope="module")
def first(operator: Operator) -> FirstLife:
    """An execution that succeeded, one that failed, and the end."""
    exported = operator.up()
    nothing_yet = operator.stockflow("logs", "ingest").stderr
    name, followed = operator.start(follow=True)
    return FirstLife(
        exported=exported,
        machines=[one["name"] for one in operator.client("stepfunctions").list_state_machines()["stateMachines"]],
        up_again=operator.stockflow("up"),
        nothing_yet=nothing_yet,
        no_json=operator.stockflow("start", "--input", "-", text="{").stderr,
        name=name,
        followed=followed,
        status=operator.must("status"),
        logs=operator.must("logs", "ingest", "--execution", name),
        stop_of_ended=operator.must("stop"),
        wrong=operator.stockflow("start", "--input", "-", "--follow", text='{"phases": ["shopping"]}'),
        down=operator.must("down"),
    )


def test_a_stack_is_brought_up_asked_worked_with_and_brought_down(operator: Operator, first: FirstLife) -> None:
    assert [first.exported["STATE_MACHINE"].rpartition(":")[2]] == first.machines
    assert first.up_again.returncode == 10
    assert "type `stockflow down` first" in first.up_again.stderr
    assert "nothing has been executed yet" in first.nothing_yet
    assert "the input is no JSON" in first.no_json
    assert first.followed.startswith(first.exported["STATE_MACHINE"].replace(":stateMachine:", ":execution:"))
    assert "CheckCoverage: ended" in first.followed
    for shown in (first.followed, first.status):
        assert "coverage: 4 tickers x 5 sessions: 4 complete\ndays: 5 complete\n" in shown
    for shown in (first.name, "SUCCEEDED", "ReleaseFleet"):
        assert shown in first.status
    assert first.logs.count("2/2 tickers") == 2
    assert "has ended already: SUCCEEDED" in first.stop_of_ended
    assert first.wrong.returncode == 2
    assert "ValidateInput: SettingsError: input phases" in first.wrong.stderr
    assert "is down" in first.down
    assert not (operator.folder / MARKER).exists()


def test_what_was_done_is_there_when_it_is_up_again(operator: Operator, first: FirstLife) -> None:
    operator.up()
    assert sorted(operator.statuses().values()) == ["FAILED", "SUCCEEDED"]
    assert "tickers" in operator.must("logs", "ingest", "--execution", first.name)
    batch = operator.client("batch")
    listed = [
        job["jobName"]
        for queue in batch.describe_job_queues()["jobQueues"]
        for job in batch.list_jobs(jobQueue=queue["jobQueueArn"], jobStatus="SUCCEEDED")["jobSummaryList"]
    ]
    assert sorted(name.rpartition("-")[2] for name in listed) == ["compact", "ingest"]
    name, _ = operator.start(follow=True)
    s3 = operator.client("s3")
    (bucket,) = (b["Name"] for b in s3.list_buckets()["Buckets"] if "storagemarket" in b["Name"])
    coverage = json.loads(s3.get_object(Bucket=bucket, Key=f"runs/{name}/coverage.json")["Body"].read())
    assert coverage["requests"] == 0
    assert coverage["held"] == coverage["rows"] > 0
    operator.must("down")


def test_what_runs_is_aborted_by_an_operator_or_as_the_stack_goes_down(tmp_path: Path) -> None:
    operator = Operator(tmp_path / "up", tmp_path / "state")
    try:
        operator.up(*SLOW)
        stopped, _ = operator.start()
        assert f"{stopped}: ABORTED" in operator.must("stop")
        running, _ = operator.start()
        assert operator.statuses()[running] == "RUNNING"
        operator.must("down")
        operator.up(*SLOW)
        assert operator.statuses() == {stopped: "ABORTED", running: "ABORTED"}
        os.kill(attach(operator.folder).aws_pid, signal.SIGKILL)
        until(lambda: operator.stockflow("status").returncode == 10)
        assert "nothing is up in" in operator.stockflow("status").stderr
        assert "has died: so does the stack" in (operator.folder / LOG).read_text()
        assert not (operator.folder / MARKER).exists()
    finally:
        operator.stockflow("down")


def test_folders_that_cannot_be_had_are_refused_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = Operator(tmp_path / "up", tmp_path).stockflow("up", *MARKET, "--state", str(tmp_path))
    assert done.returncode == 10
    assert "holds something else than an embedded AWS's state: name a new folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    done = Operator(tmp_path / "thesis.txt" / "up", tmp_path).stockflow("up", *MARKET)
    assert done.returncode == 10
    assert "name another folder with --dir" in done.stderr
    assert "nothing is up in" in Operator(tmp_path / "thesis.txt" / "up", tmp_path).stockflow("status").stderr

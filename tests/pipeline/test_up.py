"""`stockflow up` and what an operator does with it, by the command line alone; and that its state outlives it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from embedded.daemon import MARKER
from tests.pipeline.stack import FAST, until

MARKET = ("--sim", "tickers=4", "--sim", "sessions=5")
INGEST = json.dumps({"phases": ["ingest"], "settings": {"ingest": FAST["ingest"]}})


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

    def up(self) -> dict[str, str]:
        """What it exports."""
        said = self.must("up", *MARKET, "--state", str(self.state))
        return dict(re.findall(r"^export (\w+)=(.*)$", said, re.MULTILINE))


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("operator")
    operator = Operator(folder / "up", folder / "state")
    yield operator
    operator.stockflow("down")


def test_a_stack_is_brought_up_asked_worked_with_and_brought_down(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = operator.up()
    for name, value in exported.items():
        monkeypatch.setenv(name, value)
    machines = boto3.client("stepfunctions").list_state_machines()["stateMachines"]
    assert [machine["stateMachineArn"] for machine in machines] == [exported["STATE_MACHINE"]]
    again = operator.stockflow("up")
    assert again.returncode == 10
    assert "type `stockflow down` first" in again.stderr

    assert operator.stockflow("status").returncode == 0
    assert "nothing has been executed yet" in operator.stockflow("logs", "ingest").stderr
    assert "the input is no JSON" in operator.stockflow("start", "--input", "-", text="{").stderr
    said = operator.must("start", "--input", "-", "--follow", text=INGEST)
    arn = said.splitlines()[0]
    assert arn.startswith(exported["STATE_MACHINE"].replace(":stateMachine:", ":execution:"))
    assert "CheckCoverage: ended" in said
    name = arn.rpartition(":")[2]
    shown = operator.must("status")
    assert name in shown
    assert "SUCCEEDED" in shown
    assert "ReleaseFleet" in shown
    assert operator.must("logs", "ingest", "--execution", name).count("2/2 tickers") == 2
    assert "has ended already: SUCCEEDED" in operator.must("stop")

    wrong = operator.stockflow("start", "--input", "-", "--follow", text='{"phases": ["shopping"]}')
    assert wrong.returncode == 2
    assert "ValidateInput: SettingsError: input phases" in wrong.stderr

    operator.must("start", "--input", "-", text=INGEST.replace("}}}", '}}, "run_id": "long"}'))
    stopped = operator.must("stop")
    assert "ABORTED" in stopped or "SUCCEEDED" in stopped
    pid = json.loads((operator.folder / MARKER).read_text())["pid"]
    assert "is down" in operator.must("down")
    until(lambda: not Path(f"/proc/{pid}").exists())
    down = operator.stockflow("status")
    assert down.returncode == 10
    assert "nothing is up in" in down.stderr


def test_objects_executions_and_logs_are_there_when_it_is_up_again(operator: Operator) -> None:
    if not operator.state.exists():
        pytest.skip("needs the state of the test above")
    exported = operator.up()
    states = boto3.client("stepfunctions", **_client(exported))
    (first, *_) = states.list_executions(stateMachineArn=exported["STATE_MACHINE"], statusFilter="SUCCEEDED")[
        "executions"
    ]
    history = states.get_execution_history(executionArn=first["executionArn"])["events"]
    assert history[-1]["type"] == "ExecutionSucceeded"
    assert "tickers" in operator.must("logs", "ingest", "--execution", first["name"])
    said = operator.must("start", "--input", "-", "--follow", text=INGEST)
    name = said.splitlines()[0].rpartition(":")[2]
    s3 = boto3.client("s3", **_client(exported))
    (bucket,) = (b["Name"] for b in s3.list_buckets()["Buckets"] if "storagemarket" in b["Name"])
    coverage = json.loads(s3.get_object(Bucket=bucket, Key=f"runs/{name}/coverage.json")["Body"].read())
    assert coverage["requests"] == 0
    assert coverage["held"] == coverage["rows"] > 0
    operator.must("down")


def test_a_state_folder_of_somebody_else_is_refused(operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = operator.stockflow("up", *MARKET, "--state", str(tmp_path))
    assert done.returncode == 10
    assert "holds something else than an embedded AWS's state: name a new folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def _client(exported: dict[str, str]) -> dict[str, str]:
    return {
        "endpoint_url": exported["AWS_ENDPOINT_URL"],
        "region_name": exported["AWS_DEFAULT_REGION"],
        "aws_access_key_id": exported["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": exported["AWS_SECRET_ACCESS_KEY"],
    }

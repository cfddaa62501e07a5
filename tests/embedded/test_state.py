"""What outlives a server that is killed, one that is ended, and what it keeps others from meanwhile."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.config import Config

from embedded.aws.account import client
from embedded.aws.server import of_tasks
from embedded.aws.state_folder import StateInUse, claim, file_name, hold, object_file, objects, write
from embedded.services import Service, ServiceError, start_aws
from tests.embedded.deploying import write_assembly

KEYS = ("a", "a/b", "a//b", "a/", "/x", "a/../../b", ".", "é ü%20+", "l" * 1000, "l" * 200, "x.object/y", "x.object")
WAITING = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "SecondsPath": "$.seconds", "End": True}}}
TRUST = {
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}]
}
TEMPLATE = {
    "Resources": {
        "Bucket": {"Type": "AWS::S3::Bucket"},
        "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": TRUST}},
        **{
            name: {
                "Type": "AWS::StepFunctions::StateMachine",
                "Properties": {
                    "StateMachineName": name,
                    "DefinitionString": json.dumps({**WAITING, **top}),
                    "RoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
                },
            }
            for name, top in {"Machine": {}, "Impatient": {"TimeoutSeconds": 1}}.items()
        },
    },
    "Outputs": {"Bucket": {"Value": {"Ref": "Bucket"}}},
}
SIGNED = {"signed as it was": "s3", "signed as it is": "s3v4"}
GROUP = "/a/group"
STREAM = "stream/" + "s" * 300
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
FORTNIGHTS_MS = 40 * 24 * 3600 * 1000


@dataclass(frozen=True)
class Life:
    """A server over a state folder, from its start to its end."""

    server: Service

    def client(self, service: str) -> Any:
        return client(service, self.server.url)

    @property
    def bucket(self) -> str:
        return str(self.server.ready["deployed"]["stacks"]["stack"]["outputs"]["Bucket"])

    def start(self, seconds: int, machine: str = "Machine") -> str:
        states = self.client("stepfunctions")
        (arn,) = (
            one["stateMachineArn"] for one in states.list_state_machines()["stateMachines"] if one["name"] == machine
        )
        started = states.start_execution(stateMachineArn=arn, input=json.dumps({"seconds": seconds}))
        return str(started["executionArn"])

    def describe(self, arn: str) -> dict[str, Any]:
        described: dict[str, Any] = self.client("stepfunctions").describe_execution(executionArn=arn)
        return described

    def history(self, arn: str, **asked: Any) -> list[str]:
        pages = self.client("stepfunctions").get_paginator("get_execution_history").paginate(executionArn=arn, **asked)
        return [event["type"] for page in pages for event in page["events"]]


@dataclass(frozen=True)
class Left:
    """What the first life, which was killed, left."""

    state: Path
    assembly: Path
    ended: str
    running: str
    history: list[str]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.mktemp("lives")
    state, assembly = folder / "state", write_assembly(folder / "assembly", {"stack": TEMPLATE})
    server = start_aws(0, ENVIRON, assembly=assembly, state=state)
    try:
        life = Life(server)
        s3, logs = life.client("s3"), life.client("logs")
        for number, key in enumerate(KEYS):
            s3.put_object(Bucket=life.bucket, Key=key, Body=str(number).encode())
        for key, version in SIGNED.items():
            signer = client("s3", server.url, config=Config(signature_version=version))
            url = signer.generate_presigned_url("put_object", Params={"Bucket": life.bucket, "Key": key})
            put = urllib.request.Request(url, b"by an URL", {"Content-Type": "text/plain"}, method="PUT")  # noqa: S310
            urllib.request.urlopen(put).close()  # noqa: S310
        s3.put_object(Bucket=life.bucket, Key="gone", Body=b"")
        s3.delete_objects(Bucket=life.bucket, Delete={"Objects": [{"Key": "gone"}]})
        logs.create_log_group(logGroupName=GROUP)
        logs.create_log_stream(logGroupName=GROUP, logStreamName=STREAM)
        said = [{"timestamp": int(time.time() * 1000), "message": "hello"}]
        logs.put_log_events(logGroupName=GROUP, logStreamName=STREAM, logEvents=said)
        ended, running = life.start(0), life.start(3600)
        kept = state / "executions" / f"Machine.{ended.rpartition(':')[2]}.json"
        until(kept.exists)
        with pytest.raises(ServiceError, match="another embedded AWS's at this moment"):
            start_aws(0, ENVIRON, assembly=assembly, state=state)
        history = life.history(ended)
        words = psutil.Process(server.pid).cmdline()
        files = Path(words[words.index("--folder") + 1])
        assert files.is_dir()
        os.kill(server.pid, signal.SIGKILL)
    finally:
        server.stop()
    assert not files.exists()
    return Left(state, assembly, ended, running, history)


@pytest.fixture(scope="module")
def life(left: Left) -> Iterator[Life]:
    """The second one, weeks later."""
    (path,) = left.state.glob("logs/*/*.json")
    kept = json.loads(path.read_bytes())
    kept["creationTime"] -= FORTNIGHTS_MS
    for event in kept["events"]:
        event["timestamp"] -= FORTNIGHTS_MS
    path.write_text(json.dumps(kept))
    server = start_aws(0, ENVIRON, assembly=left.assembly, state=left.state)
    yield Life(server)
    server.stop()


def test_objects_of_any_name_outlive_a_killed_server(life: Life) -> None:
    s3 = life.client("s3")
    held = {found["Key"] for found in s3.list_objects_v2(Bucket=life.bucket)["Contents"]}
    assert held == {*KEYS, *SIGNED}
    read = [s3.get_object(Bucket=life.bucket, Key=key)["Body"].read() for key in (*KEYS, *SIGNED)]
    assert read == [*(str(number).encode() for number in range(len(KEYS))), b"by an URL", b"by an URL"]


def test_an_execution_outlives_a_killed_server_if_it_had_ended(life: Life, left: Left) -> None:
    assert life.describe(left.ended)["status"] == "SUCCEEDED"
    assert life.history(left.ended) == left.history
    states = life.client("stepfunctions")
    with pytest.raises(states.exceptions.ExecutionDoesNotExist):
        life.describe(left.running)


def test_logs_are_kept_however_old_they_are(life: Life) -> None:
    logs = life.client("logs")
    (stream,) = logs.describe_log_streams(logGroupName=GROUP)["logStreams"]
    assert stream["logStreamName"] == STREAM
    assert stream["creationTime"] < stream["lastIngestionTime"] - FORTNIGHTS_MS / 2
    (event,) = logs.get_log_events(logGroupName=GROUP, logStreamName=STREAM)["events"]
    assert event["message"] == "hello"
    assert event["timestamp"] < event["ingestionTime"] - FORTNIGHTS_MS / 2


def test_a_history_is_answered_page_by_page_from_either_end(life: Life, left: Left) -> None:
    states = life.client("stepfunctions")
    running = life.start(3600)
    until(lambda: "WaitStateEntered" in life.history(running))
    for arn in (left.ended, running):
        whole = life.history(arn)
        assert whole[0] == "ExecutionStarted"
        assert life.history(arn, maxResults=1) == whole
        assert life.history(arn, maxResults=1, reverseOrder=True) == whole[::-1]
    assert len(states.get_execution_history(executionArn=left.ended, maxResults=2)["events"]) == 2
    with pytest.raises(states.exceptions.InvalidToken):
        states.get_execution_history(executionArn=left.ended, nextToken="nonsense")


def test_an_execution_that_timed_out_says_when(life: Life) -> None:
    arn = life.start(3600, "Impatient")
    until(lambda: life.describe(arn)["status"] == "TIMED_OUT")
    described = life.describe(arn)
    assert described["stopDate"] >= described["startDate"]
    listed = life.client("stepfunctions").list_executions(stateMachineArn=described["stateMachineArn"])["executions"]
    assert [found["stopDate"] for found in listed] == [described["stopDate"]]


def test_an_execution_is_aborted_when_the_server_ends(life: Life, left: Left) -> None:
    arn = life.start(3600)
    life.server.stop()
    kept = json.loads((left.state / "executions" / f"Machine.{arn.rpartition(':')[2]}.json").read_bytes())
    assert (kept["status"], kept["error"]) == ("ABORTED", "EmbeddedAws")
    assert kept["cause"] == "the embedded AWS went down"
    assert kept["events"][-1]["type"] == "ExecutionAborted"


def test_tasks_find_what_machine_it_is_and_what_is_passed_by_name() -> None:
    machine = {"PATH": "/bin", "LC_ALL": "C.UTF-8", "NO_PROXY": "127.0.0.1"}
    rest = {"GITHUB_TOKEN": "secret", "AWS_PROFILE": "prod", "HOME": "/home/me", "SETTING": "stray"}
    assert of_tasks({**machine, **rest, "STAND_IN": "http://here"}, ["STAND_IN", "UNSET"]) == {
        **machine,
        "STAND_IN": "http://here",
    }


def test_each_key_has_a_file_of_its_own(tmp_path: Path) -> None:
    keys = [*KEYS, "%", "~", "a/.object", ".object", "k" * 199 + "%", "../" * 50 + "x"]
    for key in keys:
        write(object_file(tmp_path / "objects", key), key.encode())
    assert {key: path.read_bytes() for key, path in objects(tmp_path / "objects")} == {k: k.encode() for k in keys}
    assert [path.name for path in tmp_path.iterdir()] == ["objects"]
    assert len({file_name("n" * 300), file_name("n" * 301), file_name("n")}) == 3


def test_a_state_folder_is_one_users_at_a_time(tmp_path: Path) -> None:
    with hold(tmp_path / "state"), pytest.raises(StateInUse, match="end that, or name another"):
        claim(tmp_path / "state")
    claim(tmp_path / "state")
    (tmp_path / "file").touch()
    with pytest.raises(StateInUse, match="cannot be written"):
        claim(tmp_path / "file")


def until(found: Callable[[], Any], patience_s: float = 30.0) -> None:
    deadline = time.monotonic() + patience_s
    while not found():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)

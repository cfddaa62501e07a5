"""Lambda functions in processes of their own: what they see, what they answer, and how they end."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import time
import zipfile
from dataclasses import dataclass
from threading import Thread
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from embedded.aws.account import client
from embedded.aws.events import _delivered
from tests.embedded.conftest import Serve
from tests.embedded.roles import trusting

CODE = """
import json, os, sys, time
import boto3

def says(event, context):
    print("hello from", os.environ["NAME"])
    left = context.get_remaining_time_in_millis()
    who = boto3.client("sts").get_caller_identity()["Arn"]
    return {"event": event, "name": os.environ["NAME"], "who": who, "left": left, "path": __file__,
            "function": context.function_name, "pid": os.getpid()}

def fails(event, context):
    raise ValueError("no such ticker")

def sleeps(event, context):
    open(event["mark"], "w").write(str(os.getpid()))
    time.sleep(60)

def ends(event, context):
    sys.exit(3)

def imports(event, context):
    import importlib
    return importlib.import_module(event).__name__

def answers_nonsense(event, context):
    return {1, 2}
"""
QUEUE_PATIENCE_S = 20


@dataclass(frozen=True)
class Functions:
    endpoint: str

    def client(self, service: str) -> Any:
        return client(service, self.endpoint)

    def create(self, handler: str, timeout_s: int = 20, trust: str = trusting("lambda")) -> str:
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w") as archive:
            archive.writestr("code.py", CODE)
        role = self.client("iam").create_role(RoleName=f"role-{handler}-{timeout_s}", AssumeRolePolicyDocument=trust)
        return str(
            self.client("lambda").create_function(
                FunctionName=f"function-{handler}-{timeout_s}",
                Role=role["Role"]["Arn"],
                Runtime="python3.12",
                Handler=f"code.{handler}",
                Code={"ZipFile": body.getvalue()},
                Timeout=timeout_s,
                Environment={"Variables": {"NAME": "ours"}},
            )["FunctionArn"]
        )

    def call(self, arn: str, event: Any, **how: str) -> tuple[Any, str | None]:
        answer = self.client("lambda").invoke(FunctionName=arn, Payload=json.dumps(event), **how)
        payload = answer["Payload"].read()
        return (json.loads(payload) if payload else None), answer.get("FunctionError")


@pytest.fixture(scope="module")
def functions(serve: Serve) -> Functions:
    return Functions(serve("embedded.aws.functions", "embedded.aws.events"))


def test_a_function_runs_its_deployed_code_with_its_environment_and_its_role(functions: Functions) -> None:
    arn = functions.create("says")
    answer, error = functions.call(arn, {"ticker": "BRK-B"})
    assert error is None
    assert answer["event"] == {"ticker": "BRK-B"}
    assert answer["name"] == "ours"
    assert ":assumed-role/role-says-20/function-says-20" in answer["who"]
    assert 0 < answer["left"] <= 20_000
    assert answer["function"] == "function-says-20"
    assert answer["path"].endswith("/code.py")
    assert answer["pid"] != functions.call(arn, {})[0]["pid"]
    logs = functions.client("logs")
    streams = logs.describe_log_streams(logGroupName="/aws/lambda/function-says-20")["logStreams"]
    said = [
        event["message"]
        for stream in streams
        for event in logs.get_log_events(
            logGroupName="/aws/lambda/function-says-20", logStreamName=stream["logStreamName"]
        )["events"]
    ]
    assert said.count("hello from ours") == 2
    assert sum(line.startswith("REPORT RequestId: ") for line in said) == 2


@pytest.mark.parametrize(
    ("handler", "kind", "message"),
    [
        ("fails", "ValueError", "no such ticker"),
        ("ends", "Runtime.ExitError", "Runtime exited with error: exit status 3"),
        ("answers_nonsense", "TypeError", "not JSON serializable"),
        ("missing", "AttributeError", "missing"),
    ],
)
def test_a_function_that_fails_says_so_as_the_runtime_does(
    functions: Functions, handler: str, kind: str, message: str
) -> None:
    answer, error = functions.call(functions.create(handler), {})
    assert error == "Unhandled"
    assert answer["errorType"] == kind
    assert message in answer["errorMessage"]


def test_a_function_ends_at_its_timeout(functions: Functions, tmp_path: Any) -> None:
    mark = tmp_path / "mark"
    answer, error = functions.call(functions.create("sleeps", timeout_s=2), {"mark": str(mark)})
    assert (answer["errorType"], error) == ("Sandbox.Timedout", "Unhandled")
    assert answer["errorMessage"].endswith("Task timed out after 2.00 seconds")
    assert not psutil.pid_exists(int(mark.read_text()))


def test_a_killed_function_is_an_exit_of_the_runtime(functions: Functions, tmp_path: Any) -> None:
    arn, mark = functions.create("sleeps"), tmp_path / "mark"

    def kill() -> None:
        while not (mark.exists() and mark.read_text()):
            time.sleep(0.05)
        os.kill(int(mark.read_text()), signal.SIGKILL)

    killer = Thread(target=kill)
    killer.start()
    answer, _ = functions.call(arn, {"mark": str(mark)})
    killer.join()
    assert answer["errorType"] == "Runtime.ExitError"
    assert answer["errorMessage"].endswith("Runtime exited with error: signal: killed")


def test_a_call_that_nobody_waits_for_is_tried_again_and_then_goes_to_its_destination(functions: Functions) -> None:
    queues = functions.client("sqs")
    url = queues.create_queue(QueueName="lost")["QueueUrl"]
    queue = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    arn = functions.create("fails", timeout_s=10)
    functions.client("lambda").put_function_event_invoke_config(
        FunctionName=arn, MaximumRetryAttempts=1, DestinationConfig={"OnFailure": {"Destination": queue}}
    )
    assert functions.call(arn, {"detail": 1}, InvocationType="Event") == (None, None)
    messages = queues.receive_message(QueueUrl=url, WaitTimeSeconds=QUEUE_PATIENCE_S).get("Messages", [])
    (told,) = (json.loads(message["Body"]) for message in messages)
    assert told["requestPayload"] == {"detail": 1}
    assert told["responsePayload"]["errorMessage"] == "no such ticker"
    assert told["requestContext"]["approximateInvokeCount"] == 2


def test_an_event_calls_the_functions_of_its_rules_that_permit_it(functions: Functions, tmp_path: Any) -> None:
    arn, mark = functions.create("sleeps", timeout_s=1), tmp_path / "mark"
    events = functions.client("events")
    rule = events.put_rule(Name="rule", EventPattern=json.dumps({"source": ["ours"]}))["RuleArn"]
    events.put_targets(Rule="rule", Targets=[{"Id": "1", "Arn": arn, "Input": json.dumps({"mark": str(mark)})}])
    functions.client("lambda").add_permission(
        FunctionName=arn,
        StatementId="events",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn=rule,
    )
    events.put_events(Entries=[{"Source": "ours", "DetailType": "x", "Detail": "{}"}])
    until = time.monotonic() + QUEUE_PATIENCE_S
    while not mark.exists():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_function_finds_the_sdk_and_nothing_else_of_this_environment(functions: Functions) -> None:
    arn = functions.create("imports")
    assert functions.call(arn, "dateutil.parser") == ("dateutil.parser", None)
    answer, error = functions.call(arn, "numpy")
    assert (answer["errorMessage"], error) == ("No module named 'numpy'", "Unhandled")


def test_the_end_of_the_log_comes_with_the_answer_that_asks_for_it(functions: Functions) -> None:
    arn = functions.create("says", timeout_s=19)
    invoke = functions.client("lambda").invoke
    log = base64.b64decode(invoke(FunctionName=arn, Payload="{}", LogType="Tail")["LogResult"]).decode()
    assert "\nhello from ours\n" in log
    assert "REPORT RequestId: " in log
    assert "LogResult" not in invoke(FunctionName=arn, Payload="{}")


def test_a_function_whose_role_lambda_cannot_have_is_not_called(functions: Functions) -> None:
    arn = functions.create("says", timeout_s=18, trust=trusting("ec2"))
    with pytest.raises(ClientError, match="cannot be assumed by Lambda") as refused:
        functions.call(arn, {})
    assert refused.value.response["Error"]["Code"] == "AccessDeniedException"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({}, {"detail": {"day": "monday"}, "source": "theirs", "detail-type": "x"}),
        ({"InputPath": "$.detail"}, {"day": "monday"}),
        (
            {"InputTransformer": {"InputPathsMap": {"day": "$.detail.day"}, "InputTemplate": '{"on": "<day>"}'}},
            {"on": "monday"},
        ),
    ],
)
def test_a_target_gets_what_its_rule_makes_of_the_event(target: dict[str, Any], expected: dict[str, Any]) -> None:
    event = {"detail": {"day": "monday"}, "source": "theirs", "detail-type": "x", "time": 0.0, "ingestion-time": 1.0}
    delivered = _delivered(target, event)
    assert expected.items() <= delivered.items()
    assert delivered.get("time", "1970-01-01T00:00:00Z") == "1970-01-01T00:00:00Z"
    assert "ingestion-time" not in delivered

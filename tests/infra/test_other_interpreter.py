"""moto has an interpreter of the States Language too: it goes the same way and asks the services for the same.

Its tasks are given the answers that this suite's own walk was given. It knows no `.sync` of SageMaker, so all tasks
are plain calls here.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker
from moto.stepfunctions.parser.mocking.mock_config import (
    MockedResponse,
    MockedResponseReturn,
    MockedResponseThrow,
    MockTestCase,
    StateMockedResponses,
)

from app import contract
from tests.infra.deployed import REGION
from tests.infra.services import LARGEST, ONE_SHARD, Services
from tests.infra.synthesised import Synthesised

ENDED = {"SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"}
CASES: Mapping[str, tuple[dict[str, Any], dict[str, tuple[str, str]]]] = {
    "all": ({}, {}),
    "one shard": (ONE_SHARD, {}),
    "train": ({"phases": ["train"]}, {}),
    "largest": (LARGEST, {}),
    "closed": ({"only_in_sessions": True, "now": "2026-11-26T22:00:00+00:00"}, {}),
    "failed": ({}, {"BuildDataset": ("Broken", '{"errorMessage": "it\'s {broken} here"}')}),
}


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of Step Functions that runs state machines."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": REGION}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
        yield boto3.client("stepfunctions")


def interpret(states: Any, services: Services, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """moto's execution, described, with its events."""
    answers: dict[str, MockedResponse] = {
        **{state: MockedResponseReturn(0, 0, answer) for state, answer in services.answers.items()},
        **{state: MockedResponseThrow(0, 0, *failure) for state, failure in services.failing.items()},
    }
    case = MockTestCase("m", "c", [StateMockedResponses(state, state, [answer]) for state, answer in answers.items()])
    begin = ExecutionWorker.__init__
    monkeypatch.setattr(
        ExecutionWorker,
        "__init__",
        lambda self, *args, **named: begin(self, *args, **{**named, "mock_test_case": case}),
    )
    role = boto3.client("iam").create_role(RoleName="machine", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    definition = json.dumps(services.app.definition).replace('.sync"', '"')
    machine = states.create_state_machine(name=services.app.name, definition=definition, roleArn=role)
    started = states.start_execution(
        stateMachineArn=machine["stateMachineArn"], name="evening", input=json.dumps(asked)
    )["executionArn"]
    deadline = time.monotonic() + 60
    while (described := states.describe_execution(executionArn=started))["status"] not in ENDED:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return {**described, "events": states.get_execution_history(executionArn=started, maxResults=1000)["events"]}


def comparable(parameters: Any) -> str:
    """Parameters without what differs from run to run; moto spells some names as the API does."""
    text = json.dumps(uncapitalised(parameters), sort_keys=True)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)
    return re.sub(r'"started": "[^"]+"', '"started": ""', text)


def uncapitalised(value: Any) -> Any:
    if isinstance(value, dict):
        return {name[:1].lower() + name[1:]: uncapitalised(item) for name, item in value.items()}
    return [uncapitalised(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("name", "case"), [*(("default", case) for case in CASES), ("managed", "all"), ("always_on", "all")]
)
def test_both_interpreters_go_the_same_way_and_ask_for_the_same(
    variation: Callable[[str], Synthesised], name: str, case: str, states: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, failing = CASES[case]
    services = Services(variation(name), failing=failing)
    services.models.put_json(contract.LATEST_DATASET_KEY, {"run_id": "noon"})
    ours = services.run(asked)
    theirs = interpret(states, services, asked, monkeypatch)
    events = theirs["events"]
    entered = [event["stateEnteredEventDetails"]["name"] for event in events if "stateEnteredEventDetails" in event]
    scheduled = [event["taskScheduledEventDetails"] for event in events if "taskScheduledEventDetails" in event]
    assert theirs["status"] == ours.status
    assert Counter(entered) == Counter(ours.visited)  # branches run side by side
    assert Counter(comparable(json.loads(details["parameters"])) for details in scheduled) == Counter(
        comparable(task.parameters) for task in ours.tasks
    )
    if ours.status == "SUCCEEDED":
        assert json.loads(theirs["output"]) == ours.output
    else:
        assert (theirs["error"], theirs["cause"]) == (ours.error, ours.cause)

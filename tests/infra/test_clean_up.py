"""What an execution leaves running is ended, and nothing of anybody else's.

Clusters, the fleet and executions are moto's. Its batch and SageMaker know no running job, and its EMR cancels
no step: those calls are answered by botocore's Stubber, which checks them against the services' own models.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from app import contract
from app.errors import StockflowError
from app.workflow.clean_up import Held, clean_up
from app.workflow.names import cluster_name, job_prefix
from tests.infra.handlers import load_handler

REGION = "us-east-1"
MACHINE = f"arn:aws:states:{REGION}:123456789012:stateMachine:stockflow"
EXECUTION = f"arn:aws:states:{REGION}:123456789012:execution:stockflow:evening"
PREFIX = job_prefix(EXECUTION)
OTHER = job_prefix(f"{EXECUTION}-2")
FLEET = "ingest-fleet"
NOW = datetime(2026, 3, 24, tzinfo=UTC)


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", contract.ENV_JOB_QUEUES, contract.ENV_FLEET_GROUP):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(contract.ENV_CLUSTER_ID, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        yield


class Stubs:
    """Clients whose answers are written down in the order of the calls; those of other services are moto's."""

    def __init__(self) -> None:
        self._stubbed: dict[str, tuple[Any, Stubber]] = {}

    def expect(self, service: str, operation: str, answer: dict[str, Any], **asked: Any) -> None:
        """The service is called next with exactly these parameters."""
        self._stubber(service).add_response(operation, answer, asked)

    def refuse(self, service: str, operation: str, **asked: Any) -> None:
        """The service refuses the next call."""
        self._stubber(service).add_client_error(operation, "ThrottlingException", "slow down", expected_params=asked)

    def connect(self, service: str) -> Any:
        """As boto3.client."""
        return self._stubbed[service][0] if service in self._stubbed else boto3.client(service)

    def all_called(self) -> bool:
        for _, stubber in self._stubbed.values():
            stubber.assert_no_pending_responses()
        return True

    def _stubber(self, service: str) -> Stubber:
        if service not in self._stubbed:
            client = boto3.client(service)
            self._stubbed[service] = (client, Stubber(client))
            self._stubbed[service][1].activate()
        return self._stubbed[service][1]


def run_clean_up(held: Held, stubs: Stubs | None = None) -> dict[str, list[str]]:
    return clean_up(EXECUTION, MACHINE, held, (stubs or Stubs()).connect)


def expect_job_list(stubs: Stubs, queue: str, *jobs: tuple[str, str, str]) -> None:
    answer = {"jobSummaryList": [{"jobId": i, "jobName": name, "status": status} for i, name, status in jobs]}
    asked = {"jobQueue": queue, "filters": [{"name": "JOB_NAME", "values": [f"{PREFIX}-*"]}]}
    stubs.expect("batch", "list_jobs", answer, **asked)


def expect_terminated(stubs: Stubs, *job_ids: str) -> None:
    for job_id in job_ids:
        asked = {"jobId": job_id, "reason": "the execution that started it has ended"}
        stubs.expect("batch", "terminate_job", {}, **asked)


def make_cluster(name: str, **instances: Any) -> str:
    answer = boto3.client("emr").run_job_flow(
        Name=name,
        ReleaseLabel="emr-7.0.0",
        Instances={"InstanceCount": 1, "MasterInstanceType": "m5.xlarge", "KeepJobFlowAliveWhenNoSteps": True}
        | instances,
        ServiceRole="service",
        JobFlowRole="instances",
    )
    return str(answer["JobFlowId"])


def cluster_state(cluster_id: str) -> str:
    return str(boto3.client("emr").describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]["State"])


def make_fleet(instances: int) -> None:
    image = boto3.client("ec2").describe_images()["Images"][0]["ImageId"]
    scaling = boto3.client("autoscaling")
    scaling.create_launch_configuration(LaunchConfigurationName="c", ImageId=image, InstanceType="t2.2xlarge")
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=FLEET,
        LaunchConfigurationName="c",
        MinSize=0,
        MaxSize=9,
        DesiredCapacity=instances,
        AvailabilityZones=[f"{REGION}a"],
    )


def fleet_size() -> int:
    groups = boto3.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[FLEET])
    return int(groups["AutoScalingGroups"][0]["DesiredCapacity"])


def start_machine(*inputs: str) -> None:
    """The state machine with one running execution for each input, and ours."""
    role = boto3.client("iam").create_role(RoleName="machine", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    states = boto3.client("stepfunctions")
    states.create_state_machine(
        name="stockflow", definition='{"StartAt": "End", "States": {"End": {"Type": "Succeed"}}}', roleArn=role
    )
    states.start_execution(stateMachineArn=MACHINE, name="evening", input="{}")
    for number, text in enumerate(inputs):
        states.start_execution(stateMachineArn=MACHINE, name=f"other-{number}", input=text)


def test_unfinished_jobs_of_the_execution_are_terminated_in_every_queue() -> None:
    stubs = Stubs()
    expect_job_list(
        stubs, "fleet",
        ("1", f"{PREFIX}-ingest", "RUNNING"), ("2", f"{PREFIX}-ingest", "RUNNABLE"),
        ("3", f"{PREFIX}-ingest", "SUCCEEDED"), ("4", f"{PREFIX}-ingest", "FAILED"),
        ("5", f"{PREFIX.upper()}-ingest", "RUNNING"), ("6", f"{OTHER}-ingest", "RUNNING"),
    )  # fmt: skip
    expect_terminated(stubs, "1", "2")
    expect_job_list(stubs, "fargate", ("7", f"{PREFIX}-feed", "STARTING"))
    expect_terminated(stubs, "7")
    assert run_clean_up(Held(queues=("fleet", "fargate")), stubs) == {"jobs": ["1", "2", "7"]}
    assert stubs.all_called()


def test_the_training_job_of_the_execution_is_stopped() -> None:
    stubs = Stubs()
    names = [f"{PREFIX}-1f7a", f"not-{PREFIX}-1f7a"]
    state = {"CreationTime": NOW, "TrainingJobStatus": "InProgress"}
    jobs = [{"TrainingJobName": name, "TrainingJobArn": f"arn:aws:sagemaker:{name}", **state} for name in names]
    answer = {"TrainingJobSummaries": jobs}
    stubs.expect("sagemaker", "list_training_jobs", answer, NameContains=PREFIX, StatusEquals="InProgress")
    stubs.expect("sagemaker", "stop_training_job", {}, TrainingJobName=names[0])
    assert run_clean_up(Held(), stubs) == {"training jobs": [names[0]]}
    assert stubs.all_called()


def test_the_cluster_of_the_execution_ends_and_others_go_on() -> None:
    ours = make_cluster(cluster_name(PREFIX))
    others = [
        make_cluster(cluster_name(OTHER)),
        make_cluster(f"{cluster_name(PREFIX)}-copy"),
        make_cluster(cluster_name(PREFIX), TerminationProtected=True),
    ]
    before = [cluster_state(cluster) for cluster in others]
    assert run_clean_up(Held()) == {"clusters": [ours]}
    assert cluster_state(ours) == "TERMINATED"
    assert [cluster_state(cluster) for cluster in others] == before
    assert run_clean_up(Held()) == {}


def test_on_a_cluster_that_is_always_on_only_the_steps_of_the_execution_are_cancelled() -> None:
    stubs = Stubs()
    steps = [{"Id": "s-1", "Name": f"{PREFIX}-stream"}, {"Id": "s-2", "Name": f"{OTHER}-stream"}]
    stubs.expect("emr", "list_steps", {"Steps": steps}, ClusterId="j-1", StepStates=["PENDING", "RUNNING"])
    answer = {"CancelStepsInfoList": [{"StepId": "s-1", "Status": "SUBMITTED"}]}
    stubs.expect("emr", "cancel_steps", answer, ClusterId="j-1", StepIds=["s-1"])
    assert run_clean_up(Held(cluster_id="j-1"), stubs) == {"steps": ["s-1"]}
    assert stubs.all_called()


def test_a_step_that_is_not_cancelled_is_told() -> None:
    stubs = Stubs()
    steps = [{"Id": "s-1", "Name": f"{PREFIX}-stream"}]
    stubs.expect("emr", "list_steps", {"Steps": steps}, ClusterId="j-1", StepStates=["PENDING", "RUNNING"])
    answer = {"CancelStepsInfoList": [{"StepId": "s-1", "Status": "FAILED", "Reason": "no agent"}]}
    stubs.expect("emr", "cancel_steps", answer, ClusterId="j-1", StepIds=["s-1"])
    with pytest.raises(StockflowError, match="steps s-1: no agent"):
        run_clean_up(Held(cluster_id="j-1"), stubs)


def test_the_fleet_goes_to_zero_when_no_other_execution_ingests() -> None:
    make_fleet(3)
    start_machine('{"phases": ["train"]}')
    assert run_clean_up(Held(fleet=FLEET)) == {"fleet": [FLEET]}
    assert fleet_size() == 0
    assert run_clean_up(Held(fleet=FLEET)) == {}


@pytest.mark.parametrize("asked", ["{}", '{"phases": ["ingest"]}', '{"phases": ["nonsense"]}'])
def test_the_fleet_stays_while_another_execution_may_ingest(asked: str) -> None:
    make_fleet(3)
    start_machine(asked)
    assert run_clean_up(Held(fleet=FLEET)) == {}
    assert fleet_size() == 3


def test_each_release_is_tried_and_the_failures_are_told_together() -> None:
    make_fleet(3)
    start_machine()
    cluster = make_cluster(cluster_name(PREFIX))
    stubs = Stubs()
    expect_job_list(stubs, "fleet", ("1", f"{PREFIX}-ingest", "RUNNING"), ("2", f"{PREFIX}-dataset", "RUNNING"))
    reason = "the execution that started it has ended"
    stubs.refuse("batch", "terminate_job", jobId="1", reason=reason)
    expect_terminated(stubs, "2")
    stubs.refuse("sagemaker", "list_training_jobs", NameContains=PREFIX, StatusEquals="InProgress")
    with pytest.raises(StockflowError) as caught:
        run_clean_up(Held(queues=("fleet",), fleet=FLEET), stubs)
    said = str(caught.value)
    assert said.startswith(f"{EXECUTION} still holds what was not released, clean up again: jobs 1: ")
    assert "; training jobs: " in said
    assert "\n" not in said
    assert stubs.all_called()
    assert cluster_state(cluster) == "TERMINATED"
    assert fleet_size() == 0


def test_nothing_to_release_is_no_error() -> None:
    make_fleet(0)
    start_machine()
    assert run_clean_up(Held(fleet=FLEET)) == {}


@pytest.mark.parametrize(
    "event",
    [
        {"execution": EXECUTION, "machine": MACHINE},
        {
            "detail-type": "Step Functions Execution Status Change",
            "source": "aws.states",
            "detail": {"executionArn": EXECUTION, "stateMachineArn": MACHINE, "status": "ABORTED"},
        },
    ],
)
def test_the_handler_takes_the_machine_s_and_eventbridge_s_event(
    event: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_fleet(2)
    start_machine()
    cluster = make_cluster(cluster_name(PREFIX))
    monkeypatch.setenv(contract.ENV_FLEET_GROUP, FLEET)
    assert load_handler("clean_up")(event, None) == {"clusters": [cluster], "fleet": [FLEET]}


def test_the_deployment_tells_where_to_look() -> None:
    environ = {contract.ENV_JOB_QUEUES: "a,b", contract.ENV_FLEET_GROUP: "f", contract.ENV_CLUSTER_ID: "j-1"}
    assert Held.from_environ(environ) == Held(("a", "b"), "f", "j-1")
    assert Held.from_environ({}) == Held()

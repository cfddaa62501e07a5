"""State machines whose tasks are real: what they wait for, what they end, and how their own end is told."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from moto import mock_aws

from embedded.aws.account import client
from embedded.aws.host import Host
from embedded.aws.states.clients import RoleClients
from embedded.execution import ENDED, Execution, read_execution
from tests.embedded.batch_jobs import IMAGES, SCRIPT, SHELL, Jobs
from tests.embedded.conftest import Serve
from tests.embedded.roles import trusting

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Machines:
    jobs: Jobs
    role: str

    def client(self, service: str) -> Any:
        return client(service, self.jobs.endpoint)

    def create(self, states: Mapping[str, Any], **more: Any) -> str:
        definition = json.dumps({"StartAt": next(iter(states)), "States": states, **more.pop("top", {})})
        name = f"machine-{time.monotonic_ns()}"
        made = self.client("stepfunctions").create_state_machine(
            name=name, definition=definition, roleArn=self.role, **more
        )
        return str(made["stateMachineArn"])

    def start(self, machine: str, asked: Any = None) -> str:
        started = self.client("stepfunctions").start_execution(stateMachineArn=machine, input=json.dumps(asked or {}))
        return str(started["executionArn"])

    def read(self, arn: str) -> Execution:
        return read_execution(self.client("stepfunctions"), arn)

    def wait(self, arn: str) -> Execution:
        until = time.monotonic() + PATIENCE_S
        while (execution := self.read(arn)).status not in ENDED:
            assert time.monotonic() < until, execution
            time.sleep(0.1)
        return execution

    def run(self, states: Mapping[str, Any], asked: Any = None, **more: Any) -> Execution:
        return self.wait(self.start(self.create(states, **more), asked))

    def output(self, execution: Execution) -> Any:
        return json.loads(self.client("stepfunctions").describe_execution(executionArn=execution.arn)["output"])

    def job(self, command: str, **state: Any) -> dict[str, Any]:
        parameters = {
            "JobName": "job",
            "JobQueue": self.jobs.queue,
            "JobDefinition": self.jobs.define("true"),
            "ContainerOverrides": {
                "Command": [command],
                "Environment": [{"Name": "GREETING", "Value.$": "$.greeting"}],
            },
        }
        return {
            "Type": "Task",
            "Resource": "arn:aws:states:::batch:submitJob.sync",
            "Parameters": parameters,
            "End": True,
            **state,
        }


@pytest.fixture(scope="module")
def machines(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Machines:
    context = tmp_path_factory.mktemp("context")
    (context / "script.py").write_text("import os\nprint('rank', os.environ['SM_CURRENT_HOST'])\n")
    images = {
        SHELL: IMAGES[SHELL],
        SCRIPT: "FROM python\nCOPY script.py /opt/ml/code/script.py\nENV SAGEMAKER_PROGRAM=script.py\n",
    }
    executors = [f"embedded.aws.{name}" for name in ("functions", "events", "batch", "training", "cluster", "states")]
    jobs = Jobs(serve(*executors, images=images, context=context))
    role = client("iam", jobs.endpoint).create_role(RoleName="machine", AssumeRolePolicyDocument=trusting("states"))
    return Machines(jobs, role["Role"]["Arn"])


GREETING = {"greeting": "hello"}


def test_a_job_is_waited_for_and_described_as_step_functions_writes_it(machines: Machines) -> None:
    execution = machines.run({"Job": machines.job('sleep 1; test "$GREETING $MANAGED_BY_AWS" = '
                                                  '"hello STARTED_BY_STEP_FUNCTIONS"')}, GREETING)  # fmt: skip
    assert execution.status == "SUCCEEDED"
    (state,) = execution.states
    assert state.seconds is not None
    assert state.seconds > 1
    output = machines.output(execution)
    assert output["Status"] == "SUCCEEDED"
    assert output["Container"]["ExitCode"] == 0
    assert isinstance(output["StartedAt"], int)
    assert {"Name": "GREETING", "Value": "hello"} in output["Container"]["Environment"]
    assert state.submitted["JobId"] == output["JobId"]


def test_a_job_that_fails_takes_the_catch_with_its_description(machines: Machines) -> None:
    catch = [{"ErrorEquals": ["States.TaskFailed"], "ResultPath": "$.failure", "Next": "Caught"}]
    execution = machines.run(
        {"Job": machines.job("exit 4", Catch=catch), "Caught": {"Type": "Pass", "End": True}}, GREETING
    )
    assert [state.name for state in execution.states] == ["Job", "Caught"]
    failure = machines.output(execution)["failure"]
    assert failure["Error"] == "States.TaskFailed"
    assert json.loads(failure["Cause"])["Container"]["ExitCode"] == 4


def test_a_state_that_times_out_ends_its_job_and_is_tried_again(machines: Machines) -> None:
    retry = [{"ErrorEquals": ["States.Timeout"], "MaxAttempts": 1, "IntervalSeconds": 1}]
    execution = machines.run({"Job": machines.job("exec sleep 60", TimeoutSeconds=2, Retry=retry)}, GREETING)
    assert (execution.status, execution.error) == ("FAILED", "States.Timeout")
    assert execution.retries == 1
    until = time.monotonic() + PATIENCE_S
    while machines.jobs.describe(execution.states[0].submitted["JobId"])["status"] != "FAILED":
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_stopped_execution_is_aborted_at_once_and_its_jobs_end(machines: Machines) -> None:
    branches = [{"StartAt": name, "States": {name: machines.job("exec sleep 60")}} for name in ("Left", "Right")]
    arn = machines.start(machines.create({"Both": {"Type": "Parallel", "Branches": branches, "End": True}}), GREETING)
    until = time.monotonic() + PATIENCE_S
    while len(ids := [state.submitted["JobId"] for state in machines.read(arn).states if state.submitted]) < 2:
        assert time.monotonic() < until
        time.sleep(0.1)
    for job_id in ids:
        machines.jobs.wait(job_id, "RUNNING")
    states = machines.client("stepfunctions")
    states.stop_execution(executionArn=arn, error="Enough", cause="the test says so")
    described = states.describe_execution(executionArn=arn)
    assert (described["status"], described["error"], described["cause"]) == ("ABORTED", "Enough", "the test says so")
    assert {machines.jobs.wait(job_id)["status"] for job_id in ids} == {"FAILED"}
    machines.run({"Pass": {"Type": "Pass", "End": True}})  # the interpreter goes on meanwhile, and tells nobody
    events = states.get_execution_history(executionArn=arn)["events"]
    assert events[-1]["type"] == "ExecutionAborted"
    assert states.describe_execution(executionArn=arn)["status"] == "ABORTED"


def test_a_branch_that_fails_ends_what_its_siblings_wait_for(machines: Machines) -> None:
    branches = [
        {"StartAt": "Long", "States": {"Long": machines.job("exec sleep 60")}},
        {"StartAt": "Short", "States": {"Short": machines.job("sleep 1; exit 2")}},
    ]
    execution = machines.run({"Both": {"Type": "Parallel", "Branches": branches, "End": True}}, GREETING)
    assert (execution.status, execution.error) == ("FAILED", "States.TaskFailed")
    (long,) = (state for state in execution.states if state.name == "Long")
    assert machines.jobs.wait(long.submitted["JobId"])["status"] == "FAILED"


def test_a_service_s_refusal_has_the_name_that_step_functions_gives_it(machines: Machines) -> None:
    state = machines.job("true")
    state["Parameters"]["JobQueue"] = "no-such-queue"
    assert machines.run({"Job": state}, GREETING).error == "Batch.ClientException"
    job = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync",
        "Parameters": {"TrainingJobName": "no role"},
        "End": True,
    }
    assert machines.run({"Job": job}).error == "SageMaker.AmazonSageMakerException"
    scale = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:autoscaling:createAutoScalingGroup",
        "Parameters": {"AutoScalingGroupName": "none", "MinSize": 0, "MaxSize": 1},
        "End": True,
    }
    assert machines.run({"Scale": scale}).error == "AutoScaling.AutoScalingException"


def test_an_unknown_integration_is_refused_when_the_machine_is_made(machines: Machines) -> None:
    task = {"Type": "Task", "Resource": "arn:aws:states:::batch:cancelJob.sync", "End": True}
    with pytest.raises(Exception, match="not recognized"):
        machines.create({"Job": task})


def test_a_training_job_is_waited_for(machines: Machines) -> None:
    role = machines.client("iam").create_role(RoleName="training", AssumeRolePolicyDocument=trusting("sagemaker"))
    machines.client("s3").create_bucket(Bucket="models")
    parameters = {
        "TrainingJobName.$": "States.Format('job-{}', States.UUID())",
        "RoleArn": role["Role"]["Arn"],
        "AlgorithmSpecification": {"TrainingImage": SCRIPT, "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://models/jobs/"},
        "ResourceConfig": {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }
    state = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync",
        "Parameters": parameters,
        "End": True,
    }
    execution = machines.run({"Train": state})
    assert execution.status == "SUCCEEDED", execution.cause
    assert machines.output(execution)["TrainingJobStatus"] == "Completed"
    assert execution.states[0].submitted["TrainingJobArn"].endswith(machines.output(execution)["TrainingJobName"])


def test_a_cluster_is_made_works_and_is_ended(machines: Machines) -> None:
    iam = machines.client("iam")
    iam.create_role(RoleName="nodes", AssumeRolePolicyDocument=trusting("ec2"))
    iam.create_instance_profile(InstanceProfileName="nodes")
    iam.add_role_to_instance_profile(InstanceProfileName="nodes", RoleName="nodes")
    cluster = {
        "Name": "cluster",
        "ReleaseLabel": "emr-7.0.0",
        "Instances": {
            "KeepJobFlowAliveWhenNoSteps": True,
            "InstanceGroups": [{"InstanceRole": "MASTER", "InstanceType": "m5.xlarge", "InstanceCount": 1}],
        },
        "JobFlowRole": "nodes",
        "ServiceRole": "nodes",
    }
    step = {"Jar": "command-runner.jar", "Args.$": "States.Array('sh', '-c', $.command)"}
    emr = "arn:aws:states:::elasticmapreduce"
    states = {
        "Create": {
            "Type": "Task",
            "Resource": f"{emr}:createCluster.sync",
            "Parameters": cluster,
            "ResultPath": "$.cluster",
            "Next": "Step",
        },
        "Step": {
            "Type": "Task",
            "Resource": f"{emr}:addStep.sync",
            "Parameters": {
                "ClusterId.$": "$.cluster.ClusterId",
                "Step": {"Name": "step", "ActionOnFailure": "CONTINUE", "HadoopJarStep": step},
            },
            "ResultPath": None,
            "Next": "End",
        },
        "End": {
            "Type": "Task",
            "Resource": f"{emr}:terminateCluster.sync",
            "Parameters": {"ClusterId.$": "$.cluster.ClusterId"},
            "End": True,
        },
    }
    execution = machines.run(states, {"command": "exit 0"})
    assert execution.status == "SUCCEEDED", execution.cause
    assert machines.output(execution)["Cluster"]["Status"]["State"] == "TERMINATED"
    failed = machines.run(states, {"command": "exit 7"})
    assert (failed.status, failed.error) == ("FAILED", "States.TaskFailed")
    assert json.loads(failed.cause)["Step"]["Status"]["State"] == "FAILED"


def test_the_end_of_an_execution_is_an_event_and_its_history_is_logged(machines: Machines) -> None:
    logs, queues, events = (machines.client(name) for name in ("logs", "sqs", "events"))
    logs.create_log_group(logGroupName="/machine")
    group = logs.describe_log_groups(logGroupNamePrefix="/machine")["logGroups"][0]["arn"]
    url = queues.create_queue(QueueName="ends")["QueueUrl"]
    queue = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {"source": ["aws.states"], "detail": {"status": ["FAILED"]}}
    events.put_rule(Name="ends", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="ends", Targets=[{"Id": "queue", "Arn": queue}])
    execution = machines.run(
        {"Fail": {"Type": "Fail", "Error": "Odd", "Cause": "because"}},
        loggingConfiguration={
            "level": "ALL",
            "includeExecutionData": True,
            "destinations": [{"cloudWatchLogsLogGroup": {"logGroupArn": group}}],
        },
    )
    (message,) = queues.receive_message(QueueUrl=url, WaitTimeSeconds=10).get("Messages", [])
    told = json.loads(message["Body"])
    assert told["detail-type"] == "Step Functions Execution Status Change"
    assert {"executionArn": execution.arn, "status": "FAILED", "error": "Odd", "cause": "because"}.items() <= told[
        "detail"
    ].items()
    (stream,) = logs.describe_log_streams(logGroupName="/machine")["logStreams"]
    said = logs.get_log_events(logGroupName="/machine", logStreamName=stream["logStreamName"])["events"]
    types = [json.loads(event["message"])["type"] for event in said]
    assert types == ["ExecutionStarted", "FailStateEntered", "ExecutionFailed"]


def test_an_execution_without_a_name_gets_one(machines: Machines, tmp_path: Path) -> None:
    machine = machines.create({"Pass": {"Type": "Pass", "End": True}})
    names = {machines.wait(machines.start(machine)).name for _ in range(2)}
    assert len(names) == 2


def test_a_lambda_service_that_fails_for_a_while_is_called_again(machines: Machines) -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("code.py", "def answers(event, context):\n    return 'well'\n")
    role = machines.client("iam").create_role(RoleName="function", AssumeRolePolicyDocument=trusting("lambda"))
    function = machines.client("lambda").create_function(
        FunctionName="function",
        Role=role["Role"]["Arn"],
        Runtime="python3.12",
        Handler="code.answers",
        Code={"ZipFile": body.getvalue()},
    )
    retry = [{"ErrorEquals": ["Lambda.ServiceException"], "IntervalSeconds": 1, "MaxAttempts": 9, "BackoffRate": 1}]
    state = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": function["FunctionArn"]},
        "Retry": retry,
        "End": True,
    }
    machine = machines.create({"Call": state})
    fault = json.dumps({"service": "lambda", "status": 500, "seconds": 1.5}).encode()
    urlopen(f"{machines.jobs.endpoint}/_embedded/faults", fault).close()  # noqa: S310 - of loopback
    execution = machines.wait(machines.start(machine))
    assert (execution.status, machines.output(execution)["Payload"]) == ("SUCCEEDED", "well")
    assert execution.retries >= 1


def test_a_machine_whose_role_step_functions_cannot_have_does_nothing(machines: Machines) -> None:
    role = machines.jobs.role("not-for-states")
    execution = replace(machines, role=role).run({"Job": machines.job("true")}, GREETING)
    assert execution.status == "FAILED"
    assert "allows principal 'states.amazonaws.com'" in execution.cause


def test_names_that_users_gave_keep_their_capitals(machines: Machines) -> None:
    state = machines.job("true")
    state["Parameters"] |= {"Parameters": {"day": "monday"}, "Tags": {"phase": "ingest"}}
    output = machines.output(machines.run({"Job": state}, GREETING))
    assert (output["Parameters"], output["Tags"]) == ({"day": "monday"}, {"phase": "ingest"})


def test_credentials_of_a_machine_are_issued_anew(tmp_path: Path) -> None:
    with mock_aws():
        role = client("iam", "https://iam.amazonaws.com").create_role(
            RoleName="machine", AssumeRolePolicyDocument=trusting("states")
        )["Role"]["Arn"]
        host = Host(endpoint="http://127.0.0.1:1", folder=tmp_path, environ={})
        kept, renewed = RoleClients(host), RoleClients(host, renewed_after_s=0)
        assert kept.find(role, "batch") is kept.find(role, "batch")
        keys = {renewed.find(role, "batch")._request_signer._credentials.access_key for _ in range(2)}
        assert len(keys) == 2

"""What the state machine and its Lambdas do is allowed to them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore import xform_name
from botocore.loaders import Loader

from app.workflow.clean_up import Held, clean_up
from app.workflow.names import cluster_name, job_prefix
from tests.infra.deployed import ACCOUNT, REGION
from tests.infra.execution import Task
from tests.infra.permissions import allowed, function_role, who_may
from tests.infra.services import INPUTS, Services, run
from tests.infra.synthesised import Synthesised
from tests.infra.templates import resources


@pytest.mark.parametrize("asked", INPUTS.values(), ids=INPUTS)
def test_the_machine_may_do_what_its_tasks_ask_for(any_app: Synthesised, asked: dict[str, Any]) -> None:
    for task in run(any_app, asked).tasks:
        for action, arn in needed(any_app, task):
            assert who_may(any_app.permissions, action, arn) >= {"WorkflowRole"}, (task.state, action, arn)


def needed(app: Synthesised, task: Task) -> Iterator[tuple[str, str]]:
    """Actions and resources of one task, as AWS's pages on the integrations list them."""
    here = f"{REGION}:{ACCOUNT}"
    asked = task.parameters
    match task.resource.removeprefix("arn:aws:states:::"):
        case "lambda:invoke":
            yield "lambda:InvokeFunction", asked["FunctionName"]
        case "batch:submitJob.sync":
            yield from (("batch:SubmitJob", asked[name]) for name in ("JobDefinition", "JobQueue"))
            yield "batch:TerminateJob", f"arn:aws:batch:{here}:job/1f0c"
            yield "batch:DescribeJobs", "*"
            yield from managed_rule("StepFunctionsGetEventsForBatchJobsRule")
        case "sagemaker:createTrainingJob.sync":
            job = f"arn:aws:sagemaker:{here}:training-job/{asked['TrainingJobName']}"
            for verb in ("CreateTrainingJob", "DescribeTrainingJob", "StopTrainingJob", "AddTags", "ListTags"):
                yield f"sagemaker:{verb}", job
            yield "iam:PassRole", asked["RoleArn"]
            yield from managed_rule("StepFunctionsGetEventsForSageMakerTrainingJobsRule")
        case "elasticmapreduce:createCluster.sync":
            yield "elasticmapreduce:RunJobFlow", "*"
            cluster = f"arn:aws:elasticmapreduce:{here}:cluster/j-1"
            for verb in ("DescribeCluster", "TerminateJobFlows", "AddTags"):
                yield f"elasticmapreduce:{verb}", cluster
            yield "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/{asked['ServiceRole']}"
            yield "iam:PassRole", role_of_profile(app, asked["JobFlowRole"])
        case "elasticmapreduce:addStep.sync":
            cluster = f"arn:aws:elasticmapreduce:{here}:cluster/{asked['ClusterId']}"
            yield from (
                (f"elasticmapreduce:{verb}", cluster) for verb in ("AddJobFlowSteps", "DescribeStep", "CancelSteps")
            )
        case "elasticmapreduce:terminateCluster":
            yield "elasticmapreduce:TerminateJobFlows", f"arn:aws:elasticmapreduce:{here}:cluster/{asked['ClusterId']}"
        case "aws-sdk:autoscaling:setDesiredCapacity":
            group = (
                f"arn:aws:autoscaling:{here}:autoScalingGroup:9b1f:autoScalingGroupName/{asked['AutoScalingGroupName']}"
            )
            yield "autoscaling:SetDesiredCapacity", group
        case _:
            raise AssertionError(task.resource)


def managed_rule(name: str) -> Iterator[tuple[str, str]]:
    for verb in ("PutTargets", "PutRule", "DescribeRule"):
        yield f"events:{verb}", f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{name}"


def role_of_profile(app: Synthesised, profile: str) -> str:
    """ARN of the role in an instance profile."""
    (role,) = (
        properties["Roles"][0]["Ref"]
        for name, properties in resources(app.compute, "AWS::IAM::InstanceProfile").items()
        if app.compute_stack.value({"Ref": name}) == profile
    )
    return str(app.compute_stack.value({"Fn::GetAtt": [role, "Arn"]}))


@pytest.mark.parametrize("asked", INPUTS.values(), ids=INPUTS)
def test_every_lambda_may_do_what_its_logic_does_in_s3(default_app: Synthesised, asked: dict[str, Any]) -> None:
    services = Services(default_app).after_an_earlier_run()
    assert services.run(asked).status == "SUCCEEDED"
    for name, action, bucket, key in services.calls:
        arn = f"arn:aws:s3:::{default_app.bucket(bucket)}" + (f"/{key}" if key else "")
        assert function_role(name) in who_may(default_app.permissions, action, arn), (name, action, bucket, key)


def test_no_lambda_has_a_right_to_write_that_its_logic_does_not_use(default_app: Synthesised) -> None:
    services = Services(default_app)
    assert services.run({}).status == "SUCCEEDED"
    used = {(name, default_app.bucket(bucket), key) for name, action, bucket, key in services.calls if "Put" in action}
    for permission, action, resource in allowed(default_app.permissions):
        if action == "s3:PutObject" and permission.role.startswith("WorkflowFunctions"):
            pattern = re.escape(resource.removeprefix("arn:aws:s3:::")).replace(r"\*", ".*")
            roles = {function_role(name) for name, bucket, key in used if re.fullmatch(pattern, f"{bucket}/{key}")}
            assert permission.role in roles, resource


class Recorder:
    """Clients of all services at once: notes each operation, and answers as if one of everything were running."""

    def __init__(self, prefix: str) -> None:
        self.actions: set[str] = set()
        self._answers: Mapping[str, Any] = {
            "list_jobs": {"jobSummaryList": [{"jobId": "1", "jobName": f"{prefix}-ingest", "status": "RUNNING"}]},
            "list_training_jobs": {"TrainingJobSummaries": [{"TrainingJobName": f"{prefix}-1"}]},
            "list_clusters": {"Clusters": [{"Id": "j-1", "Name": cluster_name(prefix)}]},
            "describe_cluster": {"Cluster": {"TerminationProtected": False}},
            "list_steps": {"Steps": [{"Id": "s-1", "Name": f"{prefix}-stream"}]},
            "cancel_steps": {"CancelStepsInfoList": [{"Status": "SUBMITTED"}]},
            "describe_auto_scaling_groups": {"AutoScalingGroups": [{"DesiredCapacity": 2}]},
            "list_executions": {"executions": [{"executionArn": "x:other", "startDate": datetime.now(UTC)}]},
            "describe_execution": {"input": '{"phases": ["train"]}', "startDate": datetime.now(UTC)},
        }

    def connect(self, service: str) -> Any:
        """As boto3.client."""
        operations = Loader().load_service_model(service, "service-2")["operations"]
        by_method = {xform_name(operation): operation for operation in operations}
        prefix = {"emr": "elasticmapreduce", "stepfunctions": "states"}.get(service, service)
        recorder = self

        class Client:
            def __getattr__(self, method: str) -> Any:
                def call(**asked: Any) -> Any:
                    recorder.actions.add(f"{prefix}:{by_method[method]}")
                    return recorder._answers.get(method, {})

                return call

            def get_paginator(self, method: str) -> Any:
                pages = lambda **asked: [getattr(self, method)(**asked)]  # noqa: E731
                return type("Paginator", (), {"paginate": staticmethod(pages)})

        return Client()


def test_the_clean_up_may_do_all_that_it_does_and_has_no_more_rights(
    default_app: Synthesised, always_on_app: Synthesised
) -> None:
    execution = f"arn:aws:states:{REGION}:{ACCOUNT}:execution:m:evening"
    done: set[str] = set()
    granted: set[str] = set()
    for app, kinds in ((default_app, {"clusters", "fleet"}), (always_on_app, {"steps"})):
        environ = dict.fromkeys(app.functions()["clean_up"]["Environment"]["Variables"], "x")
        recorder = Recorder(job_prefix(execution))
        released = clean_up(execution, "machine", Held.from_environ(environ), recorder.connect)
        assert released.keys() == {"jobs", "training jobs", *kinds}
        mine = {action for held, action, _ in allowed(app.permissions) if held.role == function_role("clean_up")}
        assert recorder.actions <= mine
        done |= recorder.actions
        granted |= mine
    # In its name Lambda itself writes logs and traces, and puts an event that failed thrice into a queue.
    assert {action for action in granted - done if not action.startswith(("logs:", "xray:", "sqs:"))} == set()

"""The app as a whole: two stacks, and what stands around the state machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.infra.services import run
from tests.infra.synthesised import Synthesised
from tests.infra.templates import only, resources, text

ALARM = "AWS::CloudWatch::Alarm"


# --- the stacks ---------------------------------------------------------------------------------


def test_the_data_stack_knows_nothing_of_the_compute_stack(any_app: Synthesised) -> None:
    assert "Fn::ImportValue" not in json.dumps(any_app.data)
    artifacts = json.loads((any_app.folder / "manifest.json").read_text())["artifacts"]
    data, compute = (set(artifacts[f"{any_app.name}-{stack}"]["dependencies"]) for stack in ("data", "compute"))
    assert f"{any_app.name}-compute" not in data
    assert f"{any_app.name}-data" in compute


def test_all_buckets_lie_in_the_data_stack_so_that_destroying_compute_leaves_the_data(any_app: Synthesised) -> None:
    assert len(resources(any_app.data, "AWS::S3::Bucket")) == 4
    assert not resources(any_app.compute, "AWS::S3::Bucket")
    kinds = {resource["Type"].split("::")[1] for resource in any_app.data["Resources"].values()}
    assert kinds <= {"S3", "IAM", "Glue", "Athena", "Lambda", "S3AutoDeleteObjects"}


def test_buckets_are_kept_unless_a_setting_says_otherwise(default_app: Synthesised, managed_app: Synthesised) -> None:
    for app, policy in ((default_app, "Retain"), (managed_app, "Delete")):
        buckets = [found for found in app.data["Resources"].values() if found["Type"] == "AWS::S3::Bucket"]
        assert {found["DeletionPolicy"] for found in buckets} == {policy}


def test_nothing_that_holds_no_data_outlives_the_compute_stack(any_app: Synthesised) -> None:
    kept = {found["Type"] for found in any_app.compute["Resources"].values() if found.get("DeletionPolicy") == "Retain"}
    assert kept == set()


def test_names_are_cloudformation_s_own_so_that_two_deployments_live_in_one_account(any_app: Synthesised) -> None:
    needed = {"AWS::Athena::WorkGroup", "AWS::Athena::NamedQuery", "AWS::EMR::Cluster", "AWS::IAM::Policy"}
    for stack in (any_app.data, any_app.compute):
        for name, resource in stack["Resources"].items():
            if resource["Type"] not in needed:
                own = f"{resource['Type'].rpartition('::')[2]}Name"
                assert not resource.get("Properties", {}).keys() & {own, "Name"}, name


def test_what_costs_money_carries_the_deployment_s_tag(any_app: Synthesised) -> None:
    kinds = ("AWS::S3::Bucket", "AWS::Batch::JobQueue", "AWS::Batch::ComputeEnvironment", "AWS::EC2::VPC")
    tagged = [found for kind in (*kinds, ALARM) for found in resources(any_app.compute, kind).values()]
    for found in (*tagged, *resources(any_app.data, kinds[0]).values(), *any_app.functions().values()):
        tags = found["Tags"]
        pairs = tags if isinstance(tags, dict) else {tag["Key"]: tag["Value"] for tag in tags}
        assert pairs["stockflow:deployment"] == any_app.name


# --- the state machine's surroundings -----------------------------------------------------------


def test_the_machine_is_traced_and_logs_all(any_app: Synthesised) -> None:
    machine = only(any_app.compute, "AWS::StepFunctions::StateMachine")
    assert machine["TracingConfiguration"] == {"Enabled": True}
    assert machine["LoggingConfiguration"]["Level"] == "ALL"


def test_the_machine_is_created_after_its_role_s_policy_which_its_creation_is_checked_against(
    any_app: Synthesised,
) -> None:
    (machine,) = (
        found for found in any_app.compute["Resources"].values() if found["Type"] == "AWS::StepFunctions::StateMachine"
    )
    policies = {
        name
        for name, policy in resources(any_app.compute, "AWS::IAM::Policy").items()
        if machine["Properties"]["RoleArn"]["Fn::GetAtt"][0] in text(policy["Roles"][0])
    }
    assert policies
    assert policies <= set(machine["DependsOn"])


def test_an_execution_that_did_not_succeed_is_cleaned_up_after(any_app: Synthesised) -> None:
    rule = only(any_app.compute, "AWS::Events::Rule")
    (machine,) = resources(any_app.compute, "AWS::StepFunctions::StateMachine")
    assert rule["State"] == "ENABLED"
    assert rule["EventPattern"] == {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {"status": ["ABORTED", "TIMED_OUT", "FAILED"], "stateMachineArn": [{"Ref": machine}]},
    }
    (target,) = rule["Targets"]
    assert any_app.function_arns()[any_app.compute_stack.value(target["Arn"])] == "clean_up"
    assert target["RetryPolicy"]["MaximumRetryAttempts"] == 20
    (queue,) = resources(any_app.compute, "AWS::SQS::Queue")
    assert text(target["DeadLetterConfig"]["Arn"]) == f"<{queue}.Arn>"
    failing = only(any_app.compute, "AWS::Lambda::EventInvokeConfig")
    assert any_app.compute_stack.value(failing["FunctionName"]) in any_app.compute_stack.value(target["Arn"])
    assert text(failing["DestinationConfig"]["OnFailure"]["Destination"]) == f"<{queue}.Arn>"


def test_every_alarm_tells_the_topic_which_they_can_reach(any_app: Synthesised) -> None:
    (topic,) = resources(any_app.compute, "AWS::SNS::Topic")
    alarms = resources(any_app.compute, ALARM)
    assert len(alarms) >= 5
    for alarm in alarms.values():
        assert alarm["AlarmActions"] == [{"Ref": topic}]
        assert alarm["TreatMissingData"] == "notBreaching"
    key = only(any_app.compute, "AWS::KMS::Key")
    services = [
        statement["Action"]
        for statement in key["KeyPolicy"]["Statement"]
        if statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    ]
    assert services == [["kms:Decrypt", "kms:GenerateDataKey*"]]
    allowed = [
        statement["Action"]
        for statement in only(any_app.compute, "AWS::SNS::TopicPolicy")["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow" and statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    ]
    assert allowed == ["sns:Publish"]  # the policy that enforces TLS takes the place of SNS's own
    assert text(only(any_app.compute, "AWS::SNS::Topic")["KmsMasterKeyId"]).startswith("<Key")


def test_a_fleet_that_is_left_over_raises_an_alarm(default_app: Synthesised, managed_app: Synthesised) -> None:
    watched = {
        app.name + kind: [alarm for alarm in resources(app.compute, ALARM).values() if "AutoScaling" in str(alarm)]
        for app, kind in ((default_app, ""), (managed_app, "-managed"))
    }
    assert [len(alarms) for alarms in watched.values()] == [1, 0]


def test_mail_goes_to_the_address_of_the_settings(default_app: Synthesised, always_on_app: Synthesised) -> None:
    assert not resources(default_app.compute, "AWS::SNS::Subscription")
    subscription = only(always_on_app.compute, "AWS::SNS::Subscription")
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "desk@example.org")


@pytest.mark.parametrize(("name", "days"), [("default", 30), ("always_on", 90)])
def test_every_log_is_kept_for_the_days_of_the_settings(variation: Any, name: str, days: int) -> None:
    groups = resources(variation(name).compute, "AWS::Logs::LogGroup")
    assert len(groups) >= 10
    for key, group in groups.items():
        assert group["RetentionInDays"] == (7 if "FlowLogs" in key else days), key


def test_schedules_are_disabled_unless_asked_for(default_app: Synthesised, always_on_app: Synthesised) -> None:
    for app, state in ((default_app, "DISABLED"), (always_on_app, "ENABLED")):
        found = resources(app.compute, "AWS::Scheduler::Schedule").values()
        assert [schedule["State"] for schedule in found] == [state, state]


def test_a_schedule_starts_an_execution_on_new_york_s_clock_that_the_machine_takes(default_app: Synthesised) -> None:
    schedules = resources(default_app.compute, "AWS::Scheduler::Schedule").values()
    told = {schedule["ScheduleExpression"]: json.loads(schedule["Target"]["Input"]) for schedule in schedules}
    assert told == {
        "cron(30 17 ? * MON-FRI *)": {"phases": ["ingest"], "only_in_sessions": True},
        "cron(15 09 ? * MON-FRI *)": {
            "phases": ["serve"],
            "settings": {"serving": {"feed": "live"}},
            "only_in_sessions": True,
        },
    }
    assert {schedule["ScheduleExpressionTimezone"] for schedule in schedules} == {"America/New_York"}
    for asked in told.values():
        assert run(default_app, asked).status == "SUCCEEDED"
        holiday = run(default_app, {**asked, "now": "2026-12-25T17:30:00-05:00"})
        assert (holiday.status, len(holiday.tasks)) == ("SUCCEEDED", 1)

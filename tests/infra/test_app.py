"""The app as a whole: two stacks, how they are watched and cleaned up after, and how they are synthesised."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra import nag
from infra.functions import NAMES
from infra.root import ROOT
from tests.infra.services import run
from tests.infra.synthesised import VARIATIONS, Synthesised
from tests.infra.templates import only, resources, text

LAMBDA = "AWS::Lambda::Function"
ALARM = "AWS::CloudWatch::Alarm"
OF_A_LAMBDA = {"app", "boto3", "botocore"}
"""What a handler may import besides the standard library."""


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


def test_an_execution_that_was_cut_short_is_cleaned_up_after(any_app: Synthesised) -> None:
    rule = only(any_app.compute, "AWS::Events::Rule")
    (machine,) = resources(any_app.compute, "AWS::StepFunctions::StateMachine")
    assert rule["State"] == "ENABLED"
    assert rule["EventPattern"] == {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {"status": ["ABORTED", "TIMED_OUT"], "stateMachineArn": [{"Ref": machine}]},
    }
    (target,) = rule["Targets"]
    assert any_app.function_arns()[any_app.compute_stack.value(target["Arn"])] == "clean_up"
    assert target["RetryPolicy"]["MaximumRetryAttempts"] == 20
    (queue,) = resources(any_app.compute, "AWS::SQS::Queue")
    assert text(target["DeadLetterConfig"]["Arn"]) == f"<{queue}.Arn>"


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
        "cron(15 09 ? * MON-FRI *)": {"phases": ["serve"], "only_in_sessions": True},
    }
    assert {schedule["ScheduleExpressionTimezone"] for schedule in schedules} == {"America/New_York"}
    for asked in told.values():
        assert run(default_app, asked).status == "SUCCEEDED"
        holiday = run(default_app, {**asked, "now": "2026-12-25T17:30:00-05:00"})
        assert (holiday.status, len(holiday.tasks)) == ("SUCCEEDED", 1)


# --- the Lambdas --------------------------------------------------------------------------------


def test_each_lambda_s_handler_is_in_what_is_uploaded(any_app: Synthesised) -> None:
    assert any_app.functions().keys() == set(NAMES)
    for name in any_app.functions():
        tree = ast.parse((any_app.lambda_folder() / f"{name}.py").read_text())
        assert "handler" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def test_lambdas_are_traced_and_log_where_logs_end(any_app: Synthesised) -> None:
    groups = resources(any_app.compute, "AWS::Logs::LogGroup")
    for function in any_app.functions().values():
        assert function["TracingConfig"] == {"Mode": "Active"}
        assert function["LoggingConfig"]["LogGroup"]["Ref"] in groups
        assert function["Runtime"] == "python3.12"


def test_what_is_uploaded_holds_no_third_party_package(default_app: Synthesised) -> None:
    folder = default_app.lambda_folder()
    handlers = {f"{name}.py" for name in NAMES}
    data = {"defaults.json", "sessions.json", "settings_schema.json"}
    assert {found.name for found in folder.iterdir()} == {"app", "zoneinfo", *handlers, *data}
    for file in folder.rglob("*.py"):
        foreign = imports(ast.parse(file.read_text())) - set(sys.stdlib_module_names) - OF_A_LAMBDA
        # The calendar's library is imported in a function that no Lambda calls: it has sessions.json.
        assert foreign <= ({"exchange_calendars"} if file.name == "sessions.py" else set()), file
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 2_000_000


def imports(tree: ast.Module) -> set[str]:
    """Top-level names of all modules that are imported anywhere but for the types' sake."""
    found = set()
    skipped = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    for node in ast.walk(tree):
        if any(node in ast.walk(block) for block in skipped):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


# --- the synth ----------------------------------------------------------------------------------


def test_no_finding_of_the_aws_solutions_rules_is_open_and_every_exception_is_needed(any_app: Synthesised) -> None:
    report = nag.read_report(any_app.folder)
    assert report.open == ()
    assert report.idle == ()
    assert all(len(reason) > 20 and reason.endswith(".") for reason in report.reasons.values())


def test_a_second_synth_gives_the_same_templates(default_app: Synthesised, tmp_path: Path) -> None:
    again = Synthesised(VARIATIONS["default"], tmp_path)
    assert again.data == default_app.data
    assert again.compute == default_app.compute
    assert {file.name for file in again.folder.glob("asset.*")} == {
        file.name for file in default_app.folder.glob("asset.*")
    }


def test_templates_stay_below_cloudformation_s_limits(any_app: Synthesised) -> None:
    for stack in (any_app.data, any_app.compute):
        assert len(json.dumps(stack)) < 500_000  # of 1 MB
        assert len(stack["Resources"]) < 250  # of 500


def test_images_are_made_of_what_they_need_only(default_app: Synthesised) -> None:
    """Else a change of a test would build them anew, and the synth would read gigabytes."""
    images = [folder for folder in default_app.folder.glob("asset.*") if (folder / "docker").is_dir()]
    assert images
    for folder in images:
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        top = {path.partition("/")[0] for path in found}
        assert top <= {"app", "docker", "scripts", "pyproject.toml", "uv.lock", ".dockerignore"}
        assert len(found) < 150
        assert not [path for path in found if "__pycache__" in path]


def run_app(outdir: Path, *, offline: bool = False, **environ: str) -> subprocess.CompletedProcess[str]:
    """`python app.py` as somebody would without an AWS account or Docker: no credentials, and nothing on PATH."""
    kept = {name: value for name, value in os.environ.items() if name in {"HOME", "JSII_NODE", "TMPDIR", "LANG"}}
    node = {"JSII_NODE": kept.get("JSII_NODE") or shutil.which("node") or ""}
    (outdir / "bin").mkdir()
    alone = [str(shutil.which("unshare")), "--net"] if offline else []
    return subprocess.run(
        [*alone, sys.executable, str(ROOT / "app.py")],
        env={**kept, **node, "PATH": str(outdir / "bin"), "CDK_OUTDIR": str(outdir / "out"), **environ},
        cwd=outdir,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def can_be_cut_off() -> bool:
    """Whether a process can be started without a network here."""
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "--net", "true"], check=False).returncode == 0


def test_the_app_synthesises_without_docker_credentials_or_network(default_app: Synthesised, tmp_path: Path) -> None:
    done = run_app(tmp_path, offline=can_be_cut_off())
    assert (done.returncode, done.stderr) == (0, "")
    template = json.loads((tmp_path / "out" / "stockflow-compute.template.json").read_text())
    assert template == default_app.compute


@pytest.mark.parametrize(
    ("context", "told"),
    [
        ({"training.instance_type": "g3s.xlarge"}, r"setting training\.instance_type='g3s\.xlarge': g3s was never .+"),
        ({"ingestion": {"fleet": 3}}, r"unknown setting ingestion\.fleet: allowed are ingestion\.instance_type, .+"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(tmp_path: Path, context: dict[str, Any], told: str) -> None:
    done = run_app(tmp_path, CDK_CONTEXT_JSON=json.dumps(context))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(f"stockflow: {told}\n", done.stderr)
    assert not (tmp_path / "out" / "manifest.json").exists()

"""Who may do what. What IAM knows of actions and resources is read from AWS's list, which cfn-lint carries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from app import contract
from tests.infra.deployed import ACCOUNT, REGION
from tests.infra.permissions import allowed, arn_forms, function_role, takes_objects, who_may
from tests.infra.services import NOW
from tests.infra.synthesised import Synthesised
from tests.infra.templates import resources

ON_EVERYTHING = {
    "autoscaling:DescribeAutoScalingGroups",
    "batch:DescribeComputeEnvironments",
    "batch:DescribeJobs",
    "batch:ListJobs",
    "cloudwatch:PutMetricData",  # knows resources that metrics do not belong to; a condition names SageMaker's
    "ecr:GetAuthorizationToken",
    "elasticmapreduce:ListClusters",
    "elasticmapreduce:RunJobFlow",
    "logs:CreateLogDelivery",  # these eight are how a state machine is given a log group
    "logs:DeleteLogDelivery",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "logs:GetLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:UpdateLogDelivery",
    "sagemaker:ListTrainingJobs",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}
"""Actions that are allowed on any resource, because they know none."""
KMS_FAMILIES = {"kms:GenerateDataKey*", "kms:ReEncrypt*"}
"""Families of calls that differ only in what they return; EBS and SNS choose among them."""
RUN, DAY, MODEL = "evening", NOW.date(), "model-1"


# --- the form of the statements -----------------------------------------------------------------


def test_every_action_is_named_in_full_and_exists(any_app: Synthesised) -> None:
    named = {action for _, action, _ in allowed(any_app.permissions)} - KMS_FAMILIES
    assert {action for action in named if "*" in action or arn_forms(action) is None} == set()


def test_only_actions_that_know_no_resources_are_allowed_on_all(any_app: Synthesised) -> None:
    assert {action for _, action, resource in allowed(any_app.permissions) if resource == "*"} <= ON_EVERYTHING
    assert {action for action in ON_EVERYTHING if arn_forms(action)} == {"cloudwatch:PutMetricData"}


def test_the_list_of_actions_on_all_resources_has_none_too_many(default_app: Synthesised) -> None:
    assert {action for _, action, resource in allowed(default_app.permissions) if resource == "*"} == ON_EVERYTHING


def test_every_action_is_allowed_on_resources_of_a_kind_that_it_takes(any_app: Synthesised) -> None:
    for permission, action, resource in allowed(any_app.permissions):
        if resource == "*" or action in KMS_FAMILIES:
            continue
        forms = [re.sub(r"\$\{\w+\}", "[^:]*", form) for form in arn_forms(action) or ()]
        assert any(re.fullmatch(form, resource) for form in forms), (permission.role, action, resource)
        if action.startswith("s3:"):
            assert ("/" in resource) == takes_objects(action), action


def test_a_star_in_a_resource_stands_for_names_that_are_made_while_the_system_runs(any_app: Synthesised) -> None:
    for permission, action, resource in allowed(any_app.permissions):
        service, account = resource.split(":")[2:5:2] if resource != "*" else ("", "")
        assert service != "*", (permission.role, action)
        assert account in {"", "aws", ACCOUNT}, (permission.role, action)
        if service == "s3":
            assert resource.split(":")[5].partition("/")[0] in {
                *(any_app.bucket(role) for role in ("Market", "Model", "Predictions", "Logs")),
                f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}",
                "*.elasticmapreduce",  # EMR's own programs, in a bucket of each region
            }


# --- who is who ---------------------------------------------------------------------------------


def test_roles_are_assumed_by_services_and_the_consumers_account_only(any_app: Synthesised) -> None:
    trusted = set()
    for template, stack in ((any_app.data, any_app.data_stack), (any_app.compute, any_app.compute_stack)):
        for role in resources(template, "AWS::IAM::Role").values():
            for statement in role["AssumeRolePolicyDocument"]["Statement"]:
                trusted |= set(map(str, stack_value(stack, statement["Principal"]).values()))
    services = ("batch", "ec2", "ecs-tasks", "elasticmapreduce", "lambda", "sagemaker", "scheduler", "states")
    expected = {f"{service}.amazonaws.com" for service in (*services, "vpc-flow-logs")}
    assert trusted == {*expected, f"arn:aws:iam::{ACCOUNT}:root"}


def stack_value(stack: Any, written: Any) -> dict[str, Any]:
    found: dict[str, Any] = stack.value(written)
    return found


def test_policies_that_aws_writes_are_given_to_services_and_agents_only(default_app: Synthesised) -> None:
    given = {
        policy.rpartition("/")[2]
        for template, stack in (
            (default_app.data, default_app.data_stack),
            (default_app.compute, default_app.compute_stack),
        )
        for role in resources(template, "AWS::IAM::Role").values()
        for policy in stack.value(role.get("ManagedPolicyArns", []))
    }
    assert given == {
        "AWSBatchServiceRole",
        "AmazonEC2ContainerServiceforEC2Role",
        "AmazonEMRServicePolicy_v2",
        "AWSLambdaBasicExecutionRole",  # the CDK's own look-up
    }


def test_there_are_no_users_keys_or_groups(any_app: Synthesised) -> None:
    kinds = {resource["Type"] for stack in (any_app.data, any_app.compute) for resource in stack["Resources"].values()}
    assert kinds.isdisjoint({"AWS::IAM::User", "AWS::IAM::AccessKey", "AWS::IAM::Group", "AWS::IAM::ManagedPolicy"})


# --- who may write and read which keys ----------------------------------------------------------

INGEST, DATASET, FEED = "IngestionIngestRole", "IngestionDatasetRole", "IngestionFeedRole"
TRAINING, NODES, CONSUMER = "TrainingRole", "InferenceNodeRole", "StorageConsumer"


WRITERS: Mapping[tuple[str, str], set[str]] = {
    ("Market", contract.bars_key(DAY, contract.shard_part(RUN, "0000-of-0008-ab", "0a1b"))): {INGEST},
    ("Market", contract.bars_key(DAY, contract.compact_part("r"))): {INGEST},
    ("Market", contract.answers_key(DAY, contract.compact_part("r"))): {INGEST},
    ("Market", contract.journal_key(RUN, "0000-of-0008-ab", 0)): {INGEST},
    ("Market", contract.manifest_key(RUN, "0000-of-0008-ab")): {INGEST},
    ("Market", contract.plan_key(RUN)): {function_role("plan_shards")},
    ("Market", contract.coverage_key(RUN)): {function_role("check_coverage")},
    ("Market", contract.result_key(RUN, "ingest")): {function_role("check_coverage")},
    ("Market", contract.result_key(RUN, "dataset")): {DATASET},
    ("Market", contract.ticks_key(RUN, DAY, 0, 0)): {FEED},
    ("Market", contract.feed_end_key(RUN)): {FEED},
    ("Market", contract.live_session_key(RUN)): {FEED, NODES},
    ("Market", contract.stream_key(RUN)): {NODES},
    ("Market", contract.warm_state_key(RUN)): {NODES},
    ("Market", contract.result_key(RUN, "serve")): {NODES},
    ("Market", "anything-else"): set(),
    ("Model", contract.dataset_key(RUN, "train")): {DATASET},
    ("Model", contract.LATEST_DATASET_KEY): {DATASET},
    ("Model", contract.model_key(MODEL, contract.MODEL_ONNX)): {TRAINING},
    ("Model", contract.checkpoint_key(MODEL, 1)): {TRAINING},
    ("Model", contract.candidate_key(RUN)): {TRAINING},
    ("Model", contract.begun_key(RUN)): {TRAINING},
    ("Model", contract.model_key(MODEL, contract.MODEL_DECISION)): {TRAINING, function_role("gate_model")},
    ("Model", contract.CURRENT_MODEL_KEY): {function_role("promote_model")},
    ("Predictions", contract.predictions_key(DAY, RUN, 0)): {NODES},
    ("Predictions", contract.LATEST_PREDICTIONS_KEY): {NODES},
    ("Predictions", "anything-else"): set(),
}


@pytest.mark.parametrize(("bucket", "key"), WRITERS)
def test_each_key_is_written_by_one_phase(any_app: Synthesised, bucket: str, key: str) -> None:
    arn = f"arn:aws:s3:::{any_app.bucket(bucket)}/{key}"
    assert who_may(any_app.permissions, "s3:PutObject", arn) == WRITERS[bucket, key]


def test_ingest_writes_bars_and_how_it_got_them_and_nothing_else(any_app: Synthesised) -> None:
    market = f"arn:aws:s3:::{any_app.bucket('Market')}"
    written = {
        (action, resource)
        for permission, action, resource in allowed(any_app.permissions)
        if permission.role == INGEST and action not in {"s3:GetObject", "s3:ListBucket"}
    }
    passing = ("bars/*", "answers/*", "runs/*/journal/*/*")
    keys = {
        "s3:PutObject": (*passing, "runs/*/manifests/*.json"),
        "s3:AbortMultipartUpload": (*passing, "runs/*/manifests/*.json"),
        "s3:DeleteObject": passing,
    }
    assert written == {(action, f"{market}/{key}") for action, found in keys.items() for key in found}


def test_predictions_are_read_by_the_consumer_and_by_the_stream_that_makes_them(any_app: Synthesised) -> None:
    predictions = f"arn:aws:s3:::{any_app.bucket('Predictions')}"
    table = f"{predictions}/{contract.predictions_key(DAY, RUN, 0)}"
    latest = f"{predictions}/{contract.LATEST_PREDICTIONS_KEY}"
    assert who_may(any_app.permissions, "s3:GetObject", table) == {CONSUMER, NODES}
    assert who_may(any_app.permissions, "s3:GetObject", latest) == {
        CONSUMER,
        NODES,
        function_role("verify_predictions"),
    }


def test_nothing_is_deleted_but_what_is_merged_ended_or_built_anew(any_app: Synthesised) -> None:
    deleted = {
        (permission.role, resource)
        for permission, action, resource in allowed(any_app.permissions)
        if re.search(r"s3:(Delete|Put(?!Object$)|BypassGovernance|Replicate|Restore)", action)
    }
    market, model = (f"arn:aws:s3:::{any_app.bucket(name)}" for name in ("Market", "Model"))
    assert deleted == {
        (DATASET, f"{model}/datasets/*/spec.json"),
        *((TRAINING, f"{model}/models/{key}") for key in ("*/checkpoints/*", "begun/*.json")),
        *((INGEST, f"{market}/{key}") for key in ("bars/*", "answers/*", "runs/*/journal/*/*")),
    }


@pytest.mark.parametrize(
    ("action", "roles"),
    [
        ("states:StartExecution", {"SchedulerRoleForTarget"}),
        ("batch:SubmitJob", {"WorkflowRole"}),
        ("lambda:InvokeFunction", {"WorkflowRole"}),
        ("sagemaker:CreateTrainingJob", {"WorkflowRole"}),
        ("elasticmapreduce:RunJobFlow", {"WorkflowRole"}),
        ("iam:PassRole", {"WorkflowRole", "InferenceServiceRole"}),
        ("sns:Publish", {"WorkflowRole"}),
        ("sts:AssumeRole", set()),
        ("logs:CreateLogGroup", {TRAINING}),
    ],
)
def test_what_starts_something_is_allowed_to_one_only(any_app: Synthesised, action: str, roles: set[str]) -> None:
    holders = {permission.role for permission, name, _ in allowed(any_app.permissions) if name == action}
    assert {re.sub(r"[0-9a-f]{6}$", "", role) for role in holders} == roles

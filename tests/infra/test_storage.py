"""The buckets and who may reach them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.conftest import PARTNER, PREDICTIONS_DAYS, TICK_DAYS
from tests.infra.templates import Template, bucket_statements, output, resources, role_statements, text

BUCKET = "AWS::S3::Bucket"
DATA = ("Market", "Model", "Predictions")


def rules(template: Template, role: str) -> list[dict[str, Any]]:
    found = resources(template, BUCKET)[output(template, f"{role}Bucket")]["LifecycleConfiguration"]["Rules"]
    assert all(rule["Status"] == "Enabled" for rule in found)
    return list(found)


def expiry_days(template: Template, role: str) -> dict[str, int]:
    """Days after which objects go, by prefix."""
    return {
        rule.get("Prefix", ""): rule["ExpirationInDays"] for rule in rules(template, role) if "ExpirationInDays" in rule
    }


def old_version_days(template: Template, role: str) -> dict[str, int]:
    """Days after which overwritten objects go, by prefix."""
    return {
        rule.get("Prefix", ""): rule["NoncurrentVersionExpiration"]["NoncurrentDays"]
        for rule in rules(template, role)
        if "NoncurrentVersionExpiration" in rule
    }


def test_there_are_four_buckets_and_outputs_name_them(kept: Template) -> None:
    named = {output(kept, f"{role}Bucket") for role in (*DATA, "Logs")}
    assert named == set(resources(kept, BUCKET))
    assert len(named) == 4


def test_nothing_is_public(kept: Template) -> None:
    for bucket in resources(kept, BUCKET).values():
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
        assert len(bucket["PublicAccessBlockConfiguration"]) == 4
        assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
        assert "AccessControl" not in bucket
        assert "WebsiteConfiguration" not in bucket
    for statement in bucket_statements(kept):
        assert statement.effect == "Deny" or "*" not in str(statement.body["Principal"])


def test_every_bucket_is_encrypted(kept: Template) -> None:
    for bucket in resources(kept, BUCKET).values():
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}


def test_every_bucket_is_reached_by_tls_only(kept: Template) -> None:
    refused = {
        (statement.holder, str(statement.body["Condition"])): statement
        for statement in bucket_statements(kept)
        if statement.effect == "Deny"
    }
    for bucket in resources(kept, BUCKET):
        for condition in (
            {"Bool": {"aws:SecureTransport": "false"}},
            {"NumericLessThan": {"s3:TlsVersion": 1.2}},
        ):
            statement = refused[bucket, str(condition)]
            assert statement.actions == {"s3:*"}
            assert statement.resources == {f"<{bucket}.Arn>", f"<{bucket}.Arn>/*"}
            assert statement.body["Principal"] == {"AWS": "*"}


def test_buckets_stay_when_the_stack_goes(kept: Template) -> None:
    policies = {
        (resource["DeletionPolicy"], resource["UpdateReplacePolicy"])
        for resource in kept["Resources"].values()
        if resource["Type"] == BUCKET
    }
    assert policies == {("Retain", "Retain")}
    assert not resources(kept, "Custom::S3AutoDeleteObjects")


def test_buckets_and_objects_go_with_the_stack_when_not_retained(dropped: Template) -> None:
    policies = {
        (resource["DeletionPolicy"], resource["UpdateReplacePolicy"])
        for resource in dropped["Resources"].values()
        if resource["Type"] == BUCKET
    }
    assert policies == {("Delete", "Delete")}
    emptied = resources(dropped, "Custom::S3AutoDeleteObjects").values()
    assert {text(resource["BucketName"]).strip("<>") for resource in emptied} == set(resources(dropped, BUCKET))


@pytest.mark.parametrize("role", DATA)
def test_accesses_to_data_are_logged(kept: Template, role: str) -> None:
    bucket = resources(kept, BUCKET)[output(kept, f"{role}Bucket")]
    prefix = f"access/{role.lower()}/"
    logs = output(kept, "LogsBucket")
    assert bucket["LoggingConfiguration"] == {"DestinationBucketName": {"Ref": logs}, "LogFilePrefix": prefix}
    (allowed,) = (
        statement
        for statement in bucket_statements(kept)
        if statement.effect == "Allow" and statement.resources == {f"<{logs}.Arn>/{prefix}*"}
    )
    assert allowed.actions == {"s3:PutObject"}
    assert allowed.body["Principal"] == {"Service": "logging.s3.amazonaws.com"}


def test_overwritten_data_can_be_brought_back_for_a_while(kept: Template) -> None:
    for role in DATA:
        bucket = resources(kept, BUCKET)[output(kept, f"{role}Bucket")]
        assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert old_version_days(kept, "Market") == {"": 7}
    assert old_version_days(kept, "Model") == {"": 30}
    assert old_version_days(kept, "Predictions") == {"": 30, "latest.json": 1, "predictions/": 1}
    assert "VersioningConfiguration" not in resources(kept, BUCKET)[output(kept, "LogsBucket")]


def test_only_what_can_be_made_again_expires(kept: Template) -> None:
    assert expiry_days(kept, "Market") == {"ticks/": TICK_DAYS}
    assert expiry_days(kept, "Model") == {"training-jobs/": 30}
    assert expiry_days(kept, "Predictions") == {}
    assert expiry_days(kept, "Logs") == {"": 30}


def test_predictions_expire_when_a_limit_is_set(dropped: Template) -> None:
    assert expiry_days(dropped, "Predictions") == {"predictions/": PREDICTIONS_DAYS}


@pytest.mark.parametrize("role", [*DATA, "Logs"])
def test_uploads_that_were_never_finished_go(kept: Template, role: str) -> None:
    days = [rule.get("AbortIncompleteMultipartUpload") for rule in rules(kept, role)]
    assert {"DaysAfterInitiation": 7} in days


def test_predictions_are_readable_by_the_consumer_role_only(kept: Template) -> None:
    predictions = output(kept, "PredictionsBucket")
    readers = {
        statement.holder
        for statement in (*role_statements(kept), *bucket_statements(kept))
        if statement.effect == "Allow" and any(predictions in resource for resource in statement.resources)
    }
    assert readers == {output(kept, "ConsumerRole")}


def test_the_consumer_reads_predictions_and_its_query_results_and_nothing_else(kept: Template) -> None:
    predictions, logs = (f"<{output(kept, f'{role}Bucket')}.Arn>" for role in ("Predictions", "Logs"))
    allowed = {
        (action, resource)
        for statement in role_statements(kept)
        if statement.holder == output(kept, "ConsumerRole")
        for action in statement.actions
        for resource in statement.resources
        if action.startswith("s3:")
    }
    assert allowed == {
        ("s3:GetObject", f"{predictions}/predictions/*"),
        ("s3:GetObject", f"{predictions}/latest.json"),
        ("s3:ListBucket", predictions),
        ("s3:GetBucketLocation", predictions),
        ("s3:GetObject", f"{logs}/athena/*"),
        ("s3:PutObject", f"{logs}/athena/*"),
        ("s3:AbortMultipartUpload", f"{logs}/athena/*"),
        ("s3:ListMultipartUploadParts", f"{logs}/athena/*"),
        ("s3:ListBucketMultipartUploads", logs),
        ("s3:ListBucket", logs),
        ("s3:GetBucketLocation", logs),
    }


def test_no_role_may_do_everything_or_reach_everything(kept: Template, dropped: Template, reader: Template) -> None:
    for template in (kept, dropped, reader):
        for statement in role_statements(template):
            assert not any("*" in action for action in statement.actions)
            assert "*" not in statement.resources


def test_the_consumer_role_is_for_this_account_by_default(kept: Template) -> None:
    role = resources(kept, "AWS::IAM::Role")[output(kept, "ConsumerRole")]
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert text(trust["Principal"]["AWS"]) == "arn:<AWS::Partition>:iam::<AWS::AccountId>:root"


def test_the_consumer_role_is_for_the_named_principals_alone(dropped: Template) -> None:
    role = resources(dropped, "AWS::IAM::Role")[output(dropped, "ConsumerRole")]
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"AWS": PARTNER}


@pytest.mark.parametrize(
    ("grant", "actions"),
    [
        ("may_read", {"s3:GetObject"}),
        ("may_write", {"s3:PutObject", "s3:AbortMultipartUpload"}),
        ("may_delete", {"s3:DeleteObject"}),
    ],
)
def test_a_grant_on_keys_is_for_these_keys_and_one_verb(reader: Template, grant: str, actions: set[str]) -> None:
    (statement,) = (found for found in role_statements(reader) if found.holder.startswith(grant.replace("_", "")))
    assert statement.actions == actions
    (bucket,) = {resource.partition(">")[0] for resource in statement.resources}
    assert bucket.startswith("<Kept:ExportsOutputFnGetAttStorageMarket")
    assert {resource.partition(">")[2] for resource in statement.resources} == {"/bars/*", "/runs/r1/plan.json"}


def test_listing_is_for_the_whole_bucket_so_that_a_missing_object_is_no_forbidden_one(reader: Template) -> None:
    (statement,) = (found for found in role_statements(reader) if found.holder.startswith("maylist"))
    assert statement.actions == {"s3:ListBucket"}
    assert "Condition" not in statement.body
    (resource,) = statement.resources
    assert resource.endswith(">")

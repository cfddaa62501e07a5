"""Buckets and what reads them: S3, Glue, Athena."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from moto.s3.models import S3Backend, s3_backends

from embedded.aws.account import ACCOUNT, PARTITION, REGION
from embedded.aws.deployment.parameters import check_known
from embedded.aws.deployment.resources import Made, Mended, Rule, Wanted

_Setting = Callable[[Any], dict[str, Any]]


def _lifecycle_rule(written: Mapping[str, Any]) -> dict[str, Any]:
    """CloudFormation spells some of a rule's parts as one word with their unit."""
    rule = {"Filter": {"Prefix": ""}} | dict(written)
    expiration = {
        name: rule.pop(key)
        for key, name in {
            "ExpirationInDays": "Days",
            "ExpirationDate": "Date",
            "ExpiredObjectDeleteMarker": "ExpiredObjectDeleteMarker",
        }.items()
        if key in rule
    }
    if expiration:
        rule["Expiration"] = expiration
    if "Prefix" in rule:
        rule["Filter"] = {"Prefix": rule.pop("Prefix")}
    if "Id" in rule:
        rule["ID"] = rule.pop("Id")
    return rule


def _encryption(written: Mapping[str, Any]) -> dict[str, Any]:
    rules = [
        {
            **{name: value for name, value in rule.items() if name != "ServerSideEncryptionByDefault"},
            "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
        }
        for rule in written["ServerSideEncryptionConfiguration"]
    ]
    return {"ServerSideEncryptionConfiguration": {"Rules": rules}}


_BUCKET_SETTINGS: Final[Mapping[str, tuple[str, _Setting]]] = {
    "BucketEncryption": ("put_bucket_encryption", _encryption),
    "CorsConfiguration": ("put_bucket_cors", lambda written: {"CORSConfiguration": written}),
    "LifecycleConfiguration": (
        "put_bucket_lifecycle_configuration",
        lambda written: {"LifecycleConfiguration": {"Rules": [_lifecycle_rule(rule) for rule in written["Rules"]]}},
    ),
    "OwnershipControls": ("put_bucket_ownership_controls", lambda written: {"OwnershipControls": written}),
    "PublicAccessBlockConfiguration": (
        "put_public_access_block",
        lambda written: {"PublicAccessBlockConfiguration": written},
    ),
    "Tags": ("put_bucket_tagging", lambda written: {"Tagging": {"TagSet": written}}),
    "VersioningConfiguration": (
        "put_bucket_versioning",
        lambda written: {"VersioningConfiguration": {"Status": written["Status"]}},
    ),
}
"""Properties of a bucket, and the call of S3's API that sets each, once the bucket is there."""


def _log_accesses(name: str, written: Mapping[str, Any]) -> None:
    # Not through the API: moto's wants the other bucket's policy first, which names this bucket's ARN.
    check_known(written, ("DestinationBucketName", "LogFilePrefix"), "LoggingConfiguration")
    target = {"TargetBucket": written["DestinationBucketName"], "TargetPrefix": written.get("LogFilePrefix", "")}
    s3_backends[ACCOUNT][PARTITION].get_bucket(name).logging = target


def _bucket(wanted: Wanted) -> Made:
    name = wanted.named("BucketName")
    settings = wanted.properties.without("BucketName", "LoggingConfiguration")
    check_known(settings, _BUCKET_SETTINGS)
    wanted.api.call("s3", "create_bucket", {"Bucket": name})
    for setting, written in settings.items():
        method, parameters = _BUCKET_SETTINGS[setting]
        wanted.api.call("s3", method, {"Bucket": name, **parameters(written)})
    if "LoggingConfiguration" in wanted.properties:
        _log_accesses(name, wanted.properties["LoggingConfiguration"])
    domains = {"DomainName": f"{name}.s3.amazonaws.com", "RegionalDomainName": f"{name}.s3.{REGION}.amazonaws.com"}
    return Made(name, {"Arn": f"arn:{PARTITION}:s3:::{name}", **domains})


def _bucket_policy(wanted: Wanted) -> Made:
    bucket = wanted.properties["Bucket"]
    document = json.dumps(wanted.properties["PolicyDocument"])
    wanted.api.call("s3", "put_bucket_policy", {"Bucket": bucket, "Policy": document})
    return Made(bucket)


def _database(wanted: Wanted) -> Made:
    described = {"Name": wanted.name.lower(), **wanted.properties["DatabaseInput"]}
    wanted.api.call("glue", "create_database", {**wanted.properties, "DatabaseInput": described})
    return Made(described["Name"])


def _table(wanted: Wanted) -> Made:
    described = {"Name": wanted.name.lower(), **wanted.properties["TableInput"]}
    wanted.api.call("glue", "create_table", {**wanted.properties, "TableInput": described})
    return Made(described["Name"])


def _work_group(wanted: Wanted) -> Made:
    name = wanted.named("Name")
    rest = wanted.properties.without("Name", "RecursiveDeleteOption", "WorkGroupConfiguration")  # of deleting, later
    configuration = wanted.properties.get("WorkGroupConfiguration", {})
    wanted.api.call("athena", "create_work_group", {"Name": name, "Configuration": configuration, **rest})
    return Made(name)


def _named_query(wanted: Wanted) -> Made:
    answer = wanted.api.call("athena", "create_named_query", {"Name": wanted.name, **wanted.properties})
    return Made(answer["NamedQueryId"], {"NamedQueryId": answer["NamedQueryId"]})


def _no_access_logs() -> None:
    S3Backend.log_incoming_request = lambda backend, request, bucket_name: None


RULES: Final = (
    Rule("s3-bucket", "AWS::S3::Bucket", "only encryption and tags of a bucket are set", _bucket),
    Rule("s3-bucket-policy", "AWS::S3::BucketPolicy", "the type is left out", _bucket_policy),
    Rule("glue-database", "AWS::Glue::Database", "the type is left out", _database),
    Rule("glue-table", "AWS::Glue::Table", "the type is left out", _table),
    Rule("athena-work-group", "AWS::Athena::WorkGroup", "the type is left out", _work_group),
    Rule("athena-named-query", "AWS::Athena::NamedQuery", "the type is left out", _named_query),
    Mended(
        "s3-access-logs",
        "each request leaves an object in the bucket for access logs at once; AWS delivers them together, hours later",
        _no_access_logs,
    ),
)

"""Grants on the buckets, as narrow as the keys of the contract allow.

Keys are patterns of the contract (``f"{contract.BARS_PREFIX}*"``). The L2 grants of a bucket are not used: they
allow whole families of actions (``s3:GetObject*``, ``s3:List*``). Buckets are encrypted by S3's own keys, so no
grant on a key is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra import nag


def may_read(grantee: iam.IGrantable, bucket: s3.IBucket, *keys: str) -> None:
    """Allow reading the objects under `keys`."""
    _allow_on_keys(grantee, bucket, ["s3:GetObject"], keys)


def may_write(grantee: iam.IGrantable, bucket: s3.IBucket, *keys: str) -> None:
    """Allow writing objects under `keys`, large ones in parts included; neither reading nor deleting them."""
    _allow_on_keys(grantee, bucket, ["s3:PutObject", "s3:AbortMultipartUpload"], keys)


def may_delete(grantee: iam.IGrantable, bucket: s3.IBucket, *keys: str) -> None:
    """Allow removing the objects under `keys`."""
    _allow_on_keys(grantee, bucket, ["s3:DeleteObject"], keys)


def may_list(grantee: iam.IGrantable, bucket: s3.IBucket) -> None:
    """Allow listing the bucket's keys.

    The whole bucket, not a prefix of it: S3 answers 404 for a missing object only to who may list its bucket,
    and 403 to everybody else. The phases tell a missing object from a forbidden one.
    """
    _allow(grantee, ["s3:ListBucket"], [bucket.bucket_arn])


def _allow_on_keys(grantee: iam.IGrantable, bucket: s3.IBucket, actions: Sequence[str], keys: Sequence[str]) -> None:
    arns = [bucket.arn_for_objects(key) for key in keys]
    _allow(grantee, actions, arns)
    patterns = [f"Resource::{arn}" for arn in arns if "*" in arn]
    principal = grantee.grant_principal
    if patterns and isinstance(principal, Construct):
        reason = "Objects below one prefix of the contract: their names are made while the system runs."
        nag.acknowledge(principal, "AwsSolutions-IAM5", reason, *patterns)


def _allow(grantee: iam.IGrantable, actions: Sequence[str], arns: Sequence[str]) -> None:
    iam.Grant.add_to_principal(grantee=grantee, actions=list(actions), resource_arns=list(arns)).assert_success()

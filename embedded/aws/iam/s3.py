"""What operations of S3 ask for: actions that are called otherwise, on objects or on buckets."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from embedded.aws.account import PARTITION
from embedded.aws.iam import resources
from embedded.aws.iam.checks import Check
from embedded.aws.iam.wire import Operation

ON_OBJECTS: Mapping[str, str] = {
    "AbortMultipartUpload": "AbortMultipartUpload",
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "DeleteObject": "DeleteObject",
    "DeleteObjectTagging": "DeleteObjectTagging",
    "GetObject": "GetObject",
    "GetObjectAcl": "GetObjectAcl",
    "GetObjectAttributes": "GetObjectAttributes",
    "GetObjectLegalHold": "GetObjectLegalHold",
    "GetObjectRetention": "GetObjectRetention",
    "GetObjectTagging": "GetObjectTagging",
    "GetObjectTorrent": "GetObjectTorrent",
    "HeadObject": "GetObject",
    "ListParts": "ListMultipartUploadParts",
    "PutObject": "PutObject",
    "PutObjectAcl": "PutObjectAcl",
    "PutObjectLegalHold": "PutObjectLegalHold",
    "PutObjectRetention": "PutObjectRetention",
    "PutObjectTagging": "PutObjectTagging",
    "RestoreObject": "RestoreObject",
    "SelectObjectContent": "GetObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
}
"""Actions on one object, by operation. DeleteObjects asks for one for each of its objects."""
ON_BUCKETS: Mapping[str, str] = {
    "CreateBucket": "CreateBucket",
    "DeleteBucket": "DeleteBucket",
    "DeleteBucketAnalyticsConfiguration": "PutAnalyticsConfiguration",
    "DeleteBucketCors": "PutBucketCORS",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketIntelligentTieringConfiguration": "PutIntelligentTieringConfiguration",
    "DeleteBucketInventoryConfiguration": "PutInventoryConfiguration",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "DeleteBucketMetricsConfiguration": "PutMetricsConfiguration",
    "DeleteBucketOwnershipControls": "PutBucketOwnershipControls",
    "DeleteBucketPolicy": "DeleteBucketPolicy",
    "DeleteBucketReplication": "PutReplicationConfiguration",
    "DeleteBucketTagging": "PutBucketTagging",
    "DeleteBucketWebsite": "DeleteBucketWebsite",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketAccelerateConfiguration": "GetAccelerateConfiguration",
    "GetBucketAcl": "GetBucketAcl",
    "GetBucketAnalyticsConfiguration": "GetAnalyticsConfiguration",
    "GetBucketCors": "GetBucketCORS",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketIntelligentTieringConfiguration": "GetIntelligentTieringConfiguration",
    "GetBucketInventoryConfiguration": "GetInventoryConfiguration",
    "GetBucketLifecycle": "GetLifecycleConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetBucketLocation": "GetBucketLocation",
    "GetBucketLogging": "GetBucketLogging",
    "GetBucketMetricsConfiguration": "GetMetricsConfiguration",
    "GetBucketNotification": "GetBucketNotification",
    "GetBucketNotificationConfiguration": "GetBucketNotification",
    "GetBucketOwnershipControls": "GetBucketOwnershipControls",
    "GetBucketPolicy": "GetBucketPolicy",
    "GetBucketPolicyStatus": "GetBucketPolicyStatus",
    "GetBucketReplication": "GetReplicationConfiguration",
    "GetBucketRequestPayment": "GetBucketRequestPayment",
    "GetBucketTagging": "GetBucketTagging",
    "GetBucketVersioning": "GetBucketVersioning",
    "GetBucketWebsite": "GetBucketWebsite",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "ListBucketAnalyticsConfigurations": "GetAnalyticsConfiguration",
    "ListBucketIntelligentTieringConfigurations": "GetIntelligentTieringConfiguration",
    "ListBucketInventoryConfigurations": "GetInventoryConfiguration",
    "ListBucketMetricsConfigurations": "GetMetricsConfiguration",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "PutBucketAccelerateConfiguration": "PutAccelerateConfiguration",
    "PutBucketAcl": "PutBucketAcl",
    "PutBucketAnalyticsConfiguration": "PutAnalyticsConfiguration",
    "PutBucketCors": "PutBucketCORS",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "PutBucketIntelligentTieringConfiguration": "PutIntelligentTieringConfiguration",
    "PutBucketInventoryConfiguration": "PutInventoryConfiguration",
    "PutBucketLifecycle": "PutLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "PutBucketLogging": "PutBucketLogging",
    "PutBucketMetricsConfiguration": "PutMetricsConfiguration",
    "PutBucketNotification": "PutBucketNotification",
    "PutBucketNotificationConfiguration": "PutBucketNotification",
    "PutBucketOwnershipControls": "PutBucketOwnershipControls",
    "PutBucketPolicy": "PutBucketPolicy",
    "PutBucketReplication": "PutReplicationConfiguration",
    "PutBucketRequestPayment": "PutBucketRequestPayment",
    "PutBucketTagging": "PutBucketTagging",
    "PutBucketVersioning": "PutBucketVersioning",
    "PutBucketWebsite": "PutBucketWebsite",
    "PutObjectLockConfiguration": "PutBucketObjectLockConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
}
"""Actions on a bucket, by operation."""
_OF_VERSIONS = {
    "DeleteObject", "DeleteObjectTagging", "GetObject", "GetObjectAcl", "GetObjectAttributes", "GetObjectTagging",
    "GetObjectTorrent", "PutObjectAcl", "PutObjectTagging",
}  # fmt: skip
"""Actions that have a twin for a named version: `s3:GetObjectVersion`, `s3:PutObjectVersionAcl`."""
_BY_HEADER = {
    "x-amz-tagging": "PutObjectTagging",
    "x-amz-acl": "PutObjectAcl",
    "x-amz-object-lock-mode": "PutObjectRetention",
    "x-amz-object-lock-legal-hold": "PutObjectLegalHold",
}
"""What writing an object needs besides, when the request has one of these headers."""
_IN_QUERY = {"prefix": "s3:prefix", "delimiter": "s3:delimiter", "max-keys": "s3:max-keys", "versionId": "s3:VersionId"}
_IN_HEADERS = (
    "x-amz-acl", "x-amz-content-sha256", "x-amz-copy-source", "x-amz-metadata-directive", "x-amz-storage-class",
    "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id",
)  # fmt: skip
_WRITES = {"PutObject", "CopyObject", "CreateMultipartUpload"}
_READS = {"GetObject", "HeadObject"}


def s3_checks(operation: Operation) -> Iterator[Check]:
    """All that an operation of S3 asks for."""
    values = _values(operation)
    name = operation.name
    bucket, key = operation.parameters.get("Bucket", ""), operation.parameters.get("Key", "")
    if name == "DeleteObjects":
        yield from _deletions(bucket, operation.body, values)
    elif name in ON_OBJECTS:
        yield Check(_of_version(ON_OBJECTS[name], operation.parameters), _arn(bucket, key), values)
        yield from _besides(operation, bucket, key, values)
    elif name in ON_BUCKETS:
        yield Check(f"s3:{ON_BUCKETS[name]}", _arn(bucket), values)
    else:
        yield Check({"ListBuckets": "s3:ListAllMyBuckets"}.get(name, f"s3:{name}"), "*", values)


def _besides(operation: Operation, bucket: str, key: str, values: Mapping[str, str]) -> Iterator[Check]:
    """Of a request about one object: what it reads from another, says of it in headers, and needs of its key."""
    region, headers = operation.region, operation.headers
    if "x-amz-copy-source" in headers:
        source, _, version = unquote(headers["x-amz-copy-source"]).lstrip("/").partition("?versionId=")
        yield Check("s3:GetObjectVersion" if version else "s3:GetObject", _arn(source), values)
        yield from _decryption(*source.partition("/")[::2], region)
    if operation.name in _WRITES:
        yield from (
            Check(f"s3:{action}", _arn(bucket, key), values) for name, action in _BY_HEADER.items() if name in headers
        )
        yield from _encryption(operation, bucket)
    if operation.name == "GetObjectAttributes":
        yield Check(_of_version("GetObject", operation.parameters), _arn(bucket, key), values)
    if operation.name in _READS:
        held = resources.bucket(bucket)
        if held is not None and key not in held.keys:
            yield Check("s3:ListBucket", _arn(bucket), values)  # S3 tells only who may list that there is no such key
        yield from _decryption(bucket, key, region)


def _deletions(bucket: str, body: bytes, values: Mapping[str, str]) -> Iterator[Check]:
    """One for each object that DeleteObjects lists; a body that is no XML lists none, and moto refuses it."""
    try:
        listed = list(ET.fromstring(body).iterfind("{*}Object"))  # noqa: S314 - a task of this machine wrote it
    except ET.ParseError:
        listed = []
    for one in listed:
        version = one.findtext("{*}VersionId")
        action = "s3:DeleteObjectVersion" if version else "s3:DeleteObject"
        yield Check(action, _arn(bucket, one.findtext("{*}Key", "")), values)


def _encryption(operation: Operation, bucket: str) -> Iterator[Check]:
    """The key that what is written will be encrypted with, by the request or by the bucket's default."""
    headers, held = operation.headers, resources.bucket(bucket)
    default: Mapping[str, Any] = {}
    if held is not None and held.encryption:
        default = held.encryption["Rule"].get("ApplyServerSideEncryptionByDefault", {})
    algorithm = headers.get("x-amz-server-side-encryption", default.get("SSEAlgorithm", ""))
    key_id = headers.get("x-amz-server-side-encryption-aws-kms-key-id", default.get("KMSMasterKeyID"))
    key = resources.own_key(key_id, operation.region) if algorithm.startswith("aws:kms") else None
    if key is not None:
        yield _with_key("GenerateDataKey", key, operation.region)
        if operation.name == "CreateMultipartUpload":
            yield _with_key("Decrypt", key, operation.region)


def _decryption(bucket: str, key: str, region: str) -> Iterator[Check]:
    held = resources.bucket(bucket)
    found = held.keys.get(key) if held is not None else None
    arn = resources.own_key(getattr(found, "kms_key_id", None), region)
    if arn is not None:
        yield _with_key("Decrypt", arn, region)


def _with_key(verb: str, key: str, region: str) -> Check:
    return Check(f"kms:{verb}", key, {"kms:ViaService": f"s3.{region}.amazonaws.com"})


def _values(operation: Operation) -> dict[str, str]:
    asked = {key: operation.parameters[name] for name, key in _IN_QUERY.items() if name in operation.parameters}
    return asked | {f"s3:{name}": operation.headers[name] for name in _IN_HEADERS if name in operation.headers}


def _of_version(action: str, parameters: Mapping[str, Any]) -> str:
    if "versionId" in parameters and action in _OF_VERSIONS:
        return "s3:" + action.replace("Object", "ObjectVersion", 1)
    return f"s3:{action}"


def _arn(bucket: str, key: str = "") -> str:
    return f"arn:{PARTITION}:s3:::{bucket}/{key}" if key else f"arn:{PARTITION}:s3:::{bucket}"

"""Resources as they stand now in moto: their ARNs where a request names them otherwise, their policies, their tags."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from moto.awslambda.exceptions import UnknownFunctionException
from moto.backends import get_backend

from embedded.aws.account import ACCOUNT, PARTITION
from embedded.aws.iam.policies import Document, read_policy
from embedded.aws.iam.roles import Roles, tag_map

_KEY_ID_BYTES = 36
"""moto writes the key's id at the beginning of what it encrypts."""


class Attached(NamedTuple):
    """A resource's own policy. decisive: it has the last word, as the policies of keys and the trust of roles have."""

    document: Document
    decisive: bool = False


def backend(service: str, region: str) -> Any:
    """moto's backend of a service in this account."""
    return get_backend(service)[ACCOUNT][region]


def arn(service: str, region: str, rest: str) -> str:
    """An ARN in this account; IAM and STS know no regions."""
    return f"arn:{PARTITION}:{service}:{'' if service in {'iam', 'sts'} else region}:{ACCOUNT}:{rest}"


# --- policies of resources ------------------------------------------------------------------------


def attached_policy(action: str, resource: str, roles: Roles) -> Attached | None:
    """The policy of the resource that a call is about; None for a resource that has none."""
    service = action.partition(":")[0]
    if service == "sts":
        role = roles.find(resource) if action.startswith("sts:AssumeRole") else None
        return None if role is None else Attached(role.trust, decisive=True)
    find = _POLICIES.get(service)
    if find is None or resource.count(":") < 5:
        return None
    _, _, _, region, _, name = resource.split(":", 5)
    document = find(region, name)
    return None if not document else Attached(read_policy(document), decisive=service == "kms")


def _bucket_policy(region: str, name: str) -> Any:
    found = bucket(name.partition("/")[0])
    return None if found is None else found.policy


def _topic_policy(region: str, name: str) -> Any:
    topic = backend("sns", region).topics.get(arn("sns", region, name))
    return None if topic is None else topic._policy_json


def _queue_policy(region: str, name: str) -> Any:
    queue = backend("sqs", region).queues.get(name)
    return queue._policy_json if queue is not None and queue.policy else None


def _function_policy(region: str, name: str) -> Any:
    with contextlib.suppress(UnknownFunctionException):
        function = backend("lambda", region).get_function(name.split(":")[1])
        statements = function.policy.statements
        return {"Version": "2012-10-17", "Statement": statements} if statements else None
    return None


def _key_policy(region: str, name: str) -> Any:
    key = backend("kms", region).keys.get(name.partition("/")[2])
    return None if key is None else key.policy


_POLICIES: Mapping[str, Callable[[str, str], Any]] = {
    "s3": _bucket_policy,
    "sns": _topic_policy,
    "sqs": _queue_policy,
    "lambda": _function_policy,
    "kms": _key_policy,
}


# --- what requests name in another way ------------------------------------------------------------


def bucket(name: str) -> Any | None:
    """moto's bucket; None when there is none."""
    return backend("s3", PARTITION).buckets.get(name)


def key_arn(key_id: str, region: str) -> str:
    """ARN of a KMS key by id, ARN, alias or ARN of an alias."""
    name = key_id.partition(":key/")[2] or key_id
    alias = "alias/" + name.partition("alias/")[2]
    if alias != "alias/":
        keys = list(backend("kms", region).keys.values())
        name = next((key.id for key in keys if alias in key.aliases), name)
    return arn("kms", region, name if name.startswith("alias/") else f"key/{name}")


def key_of_ciphertext(blob: str, region: str) -> str:
    """ARN of the key that something was encrypted with."""
    with contextlib.suppress(binascii.Error, UnicodeDecodeError):
        return key_arn(base64.b64decode(blob)[:_KEY_ID_BYTES].decode(), region)
    return arn("kms", region, "key/*")


def own_key(key_id: str | None, region: str) -> str | None:
    """ARN of a key whose policy the account writes; None for the keys that AWS keeps for its services, and for none."""
    if not key_id or "alias/aws/" in key_id:
        return None
    return key_arn(key_id, region)


def group_arn(name: str, region: str) -> str:
    """ARN of an Auto Scaling group, which holds an id."""
    group = backend("autoscaling", region).autoscaling_groups.get(name)
    return arn("autoscaling", region, f"autoScalingGroup:*:autoScalingGroupName/{name}") if group is None else group.arn


def group_of_instance(instance: str, region: str) -> str:
    """ARN of the Auto Scaling group that an instance belongs to."""
    for group in list(backend("autoscaling", region).autoscaling_groups.values()):
        if any(state.instance.id == instance for state in group.instance_states):
            return str(group.arn)
    return arn("autoscaling", region, "autoScalingGroup:*:autoScalingGroupName/*")


def workgroup_of_execution(execution: str, region: str) -> str:
    """The Athena workgroup in which a query runs or ran."""
    found = backend("athena", region).executions.get(execution)
    return "*" if found is None or found.workgroup is None else str(found.workgroup.name)


def workgroup_of_query(query: str, region: str) -> str:
    """The Athena workgroup of a named query."""
    found = backend("athena", region).named_queries.get(query)
    return "*" if found is None else str(found.workgroup.name)


# --- tags -----------------------------------------------------------------------------------------


def resource_tags(resource: str) -> Mapping[str, str]:
    """Tags of clusters, training jobs and Auto Scaling groups; of other resources none are known."""
    if resource.count(":") < 5:
        return {}
    _, _, service, region, _, name = resource.split(":", 5)
    name = name.rpartition("/")[2]
    match service:
        case "elasticmapreduce":
            found = backend("emr", region).clusters.get(name)
        case "sagemaker":
            found = backend("sagemaker", region).training_jobs.get(name)
        case "autoscaling":
            found = backend("autoscaling", region).autoscaling_groups.get(name)
        case _:
            found = None
    return {} if found is None else tag_map(found.tags)

"""Roles and keys: IAM, KMS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.models import AWSManagedPolicy, iam_backends

from embedded.aws.account import ACCOUNT, PARTITION, REGION
from embedded.aws.deployment.resources import Made, Rule, Wanted


@cache
def _policies_of_aws() -> Mapping[str, Any]:
    policies: Mapping[str, Any] = json.loads(aws_managed_policies_data)
    return policies


def _make_known(policy: str) -> None:
    """Put a policy that AWS maintains where moto looks for it; moto loads all thousand of them or none."""
    known = iam_backends[ACCOUNT][PARTITION].managed_policies
    name = policy.rpartition("/")[2]
    if policy not in known and policy.startswith(f"arn:{PARTITION}:iam::aws:") and name in _policies_of_aws():
        known[policy] = AWSManagedPolicy.from_data(name, ACCOUNT, REGION, _policies_of_aws()[name])


def _role(wanted: Wanted) -> Made:
    name = wanted.named("RoleName")
    properties = wanted.properties.without("ManagedPolicyArns", "Policies")
    role = wanted.api.call("iam", "create_role", {**properties, "RoleName": name})["Role"]
    for policy in wanted.properties.get("Policies", ()):
        wanted.api.call("iam", "put_role_policy", {"RoleName": name, **policy})
    for arn in wanted.properties.get("ManagedPolicyArns", ()):
        _make_known(arn)
        wanted.api.call("iam", "attach_role_policy", {"RoleName": name, "PolicyArn": arn})
    return Made(name, {"Arn": role["Arn"], "RoleId": role["RoleId"]})


def _key(wanted: Wanted) -> Made:
    properties = wanted.properties.without(
        "Enabled", "EnableKeyRotation", "KeyPolicy", "PendingWindowInDays", "RotationPeriodInDays"
    )
    if "KeyPolicy" in wanted.properties:
        properties["Policy"] = wanted.properties["KeyPolicy"]
    key = wanted.api.call("kms", "create_key", properties)["KeyMetadata"]
    if wanted.properties.get("EnableKeyRotation"):
        wanted.api.call("kms", "enable_key_rotation", {"KeyId": key["KeyId"]})
    if wanted.properties.get("Enabled") is False:
        wanted.api.call("kms", "disable_key", {"KeyId": key["KeyId"]})
    return Made(key["KeyId"], {"Arn": key["Arn"], "KeyId": key["KeyId"]})


RULES: Final = (
    Rule("iam-role", "AWS::IAM::Role", "managed policies are not attached, inline ones are no JSON", _role),
    Rule("kms-key", "AWS::KMS::Key", "a key with tags cannot be created", _key),
)

"""What a request asks IAM for: each action, the resource it is about, and the context keys that belong to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from embedded.aws.iam.checks import Check
from embedded.aws.iam.implied import implied_checks, request_tags
from embedded.aws.iam.readers import resource_arns
from embedded.aws.iam.roles import Roles
from embedded.aws.iam.s3 import s3_checks
from embedded.aws.iam.tables import SERVICES, Asked, Service, read_table
from embedded.aws.iam.wire import Operation

_FREE = {"sts:GetCallerIdentity", "sts:GetSessionToken"}
"""What needs no permission."""
_VALUES: Mapping[str, Mapping[str, str]] = {
    "cloudwatch:PutMetricData": {"Namespace": "cloudwatch:namespace"},
    "iam:AttachRolePolicy": {"PolicyArn": "iam:PolicyARN"},
    "iam:CreateServiceLinkedRole": {"AWSServiceName": "iam:AWSServiceName"},
    "iam:DetachRolePolicy": {"PolicyArn": "iam:PolicyARN"},
    "lambda:AddPermission": {"Principal": "lambda:Principal"},
    "sns:Subscribe": {"Protocol": "sns:Protocol", "Endpoint": "sns:Endpoint"},
    "sts:AssumeRole": {"RoleSessionName": "sts:RoleSessionName", "ExternalId": "sts:ExternalId"},
}
"""Context keys that have the value of a parameter."""


def checks(operation: Operation, roles: Roles) -> list[Check]:
    """All that an operation asks for; it may be carried out when every one is allowed."""
    if operation.service == "s3":
        return list(s3_checks(operation))
    service = SERVICES.get(operation.service, Service(operation.service, (operation.service,), ""))
    if f"{service.prefix}:{operation.name}" in _FREE:
        return []
    tags = request_tags(operation.parameters)
    own = list(_own_checks(service, operation))
    besides = implied_checks(service.prefix, operation.name, operation.parameters, operation.region, own, roles)
    return [Check(one.action, one.resource, {**tags, **one.values}) for one in (*own, *besides)]


def _own_checks(service: Service, operation: Operation) -> Iterator[Check]:
    action = f"{service.prefix}:{operation.name}"
    for asked in _table(service).get(operation.name, [Asked(action, "", optional=False)]):
        names = _VALUES.get(asked.action, {})
        values = {key: str(operation.parameters[name]) for name, key in names.items() if name in operation.parameters}
        if not asked.resource:
            yield Check(asked.action, "*", values)
        else:
            for arn in resource_arns(asked, operation.parameters, operation.region):
                yield Check(asked.action, arn, values)


@cache
def _table(service: Service) -> Mapping[str, list[Asked]]:
    return read_table(service)

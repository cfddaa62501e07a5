"""The tables of actions and resources against AWS's own list, which cfn-lint carries, and against boto3's models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from botocore import xform_name
from botocore.model import OperationModel, Shape
from moto.core.utils import get_service_model

from embedded.aws.account import ACCOUNT, PARTITION, REGION
from embedded.aws.iam.implied import PASSED, TAGGING
from embedded.aws.iam.s3 import ON_BUCKETS, ON_OBJECTS
from embedded.aws.iam.tables import SERVICES, Service, read_table
from tests.embedded.iam_requests import ROLE, asked
from tests.infra.permissions import arn_forms, takes_objects

IN_PART = {"athena", "ec2", "events", "glue", "iam", "logs", "monitoring", "sagemaker", "sts"}
"""Services of whose operations only those are in the tables that stacks of batch work use."""
NAMELESS = {
    "lambda": {f"SendDurableExecutionCallback{word}" for word in ("Success", "Failure", "Heartbeat")},
    "sqs": {"CancelMessageMoveTask"},
}
"""Operations whose parameters do not tell which resource they are about."""
BY_PREFIX = {service.prefix: service for service in SERVICES.values()}
KEY = "1b0c6a5e-0000-4000-8000-000000000000"
VALUES: dict[str, Any] = {
    "AWSServiceName": "batch.amazonaws.com",
    "AliasName": "alias/prices",
    "CiphertextBlob": KEY.encode() + b"secret",
    "KeyId": KEY,
    "QueueUrl": f"http://127.0.0.1:5000/{ACCOUNT}/prices",
    "SubscriptionArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:prices:{KEY}",
}


@pytest.mark.parametrize("signed", SERVICES)
def test_operations_ask_for_actions_that_exist_on_kinds_of_resources_that_they_take(signed: str) -> None:
    service = SERVICES[signed]
    by_name = {model.name: (name, model) for name, model in models(service)}
    for operation, own in read_table(service).items():
        client, model = by_name[operation]
        parameters = sample(model.input_shape, "", an_arn(own[-1].action))
        found = asked(client, xform_name(operation), **parameters)
        assert found
        for check in found:
            forms = arn_forms(check.action)
            assert forms, check
            assert any(re.fullmatch(re.sub(r"\$\{\w+\}", "[^:]*", form), check.resource) for form in forms), check


@pytest.mark.parametrize("signed", sorted(SERVICES.keys() - IN_PART))
def test_operations_about_resources_are_in_the_tables(signed: str) -> None:
    service = SERVICES[signed]
    table = read_table(service)
    operations = {model.name for _, model in models(service)}
    about = {operation for operation in operations if arn_forms(f"{service.prefix}:{operation}")}
    assert about - table.keys() == NAMELESS.get(signed, set())


def test_roles_that_operations_hand_on_are_parameters_of_theirs() -> None:
    for prefix, rows in PASSED.items():
        service = BY_PREFIX[prefix]
        shapes = {model.name: model.input_shape for _, model in models(service)}
        for row in rows:
            for operation in row.operations.split():
                paths = row.role.strip("{}").partition("|")[0].split(",")
                assert all(has(shapes[operation], path) for path in paths), (operation, row.role)


def test_actions_that_tag_exist() -> None:
    for prefix, (_, action) in TAGGING.items():
        assert arn_forms(f"{prefix}:{action}"), action


@pytest.mark.parametrize(("actions", "objects"), [(ON_OBJECTS, True), (ON_BUCKETS, False)])
def test_actions_of_s3_are_about_objects_or_about_buckets(actions: Mapping[str, str], objects: bool) -> None:
    operations = set(get_service_model("s3").operation_names)
    for operation, action in actions.items():
        assert operation in operations
        assert takes_objects(f"s3:{action}") == objects, action


def test_operations_of_s3_are_in_its_tables() -> None:
    left = set(get_service_model("s3").operation_names) - ON_OBJECTS.keys() - ON_BUCKETS.keys()
    rare = re.compile(
        "Metadata|Annotation|Abac|Directory|Session|Preflight|Rename|ObjectEncryption|WriteGet|PostObject"
    )
    assert {operation for operation in left if not rare.search(operation)} == {"DeleteObjects", "ListBuckets"}


# --- parameters -----------------------------------------------------------------------------------


def models(service: Service) -> Iterator[tuple[str, OperationModel]]:
    for name in service.models:
        model = get_service_model(name)
        yield from ((name, model.operation_model(operation)) for operation in model.operation_names)


def an_arn(action: str) -> str:
    """An ARN that an action takes."""
    forms = arn_forms(action)
    assert forms
    filled = forms[0].replace("${Partition}", PARTITION).replace("${Region}", REGION).replace("${Account}", ACCOUNT)
    return filled.replace(".*", "x")


def sample(shape: Shape, name: str, arn: str) -> Any:
    """A value for a parameter."""
    match shape.type_name:
        case "string" | "blob" if name in VALUES:
            return VALUES[name]
        case "structure":
            return {key: sample(member, key, arn) for key, member in shape.members.items() if worth(shape, key, member)}
        case "list":
            return [sample(shape.member, name.removesuffix("s"), arn)] * max(1, shape.metadata.get("min", 1))
        case "string" if name.lower().endswith(("arn", "resource", "role")) and name != "RoleName":
            return ROLE if "role" in name.lower() else arn
        case "string":
            return (shape.enum[0] if shape.enum else "prices").ljust(shape.metadata.get("min", 1), "x")
        case kind:
            return {"map": {}, "boolean": True, "blob": b"x", "timestamp": 1}.get(kind, shape.metadata.get("min", 1))


def worth(shape: Shape, key: str, member: Shape) -> bool:
    """Required parameters, and those that may name a resource."""
    named = member.type_name == "string" and re.search("Name|Arn|Id$|Url", key) and key != "EndpointId"
    return key in shape.required_members or bool(named)


def has(shape: Shape, path: str) -> bool:
    """Whether an operation's input has a parameter."""
    for part in path.split("."):
        name = part.removesuffix("[]")
        if name not in shape.members:
            return False
        shape = shape.members[name]
        shape = shape.member if part.endswith("[]") else shape
    return True

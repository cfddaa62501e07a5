"""Reading synthesised templates in tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

Template = dict[str, Any]


class Statement(NamedTuple):
    """One statement of an IAM policy or of a bucket's policy; `holder` is the role or the bucket, by logical id."""

    holder: str
    effect: str
    actions: frozenset[str]
    resources: frozenset[str]
    body: dict[str, Any]


def load(folder: Path, stack: str) -> Template:
    """The template of one stack of a synthesised app."""
    template: Template = json.loads((folder / f"{stack}.template.json").read_text())
    return template


def resources(template: Template, kind: str) -> dict[str, dict[str, Any]]:
    """Properties of all resources of a type, by logical id."""
    found = template["Resources"].items()
    return {name: resource.get("Properties", {}) for name, resource in found if resource["Type"] == kind}


def only(template: Template, kind: str) -> dict[str, Any]:
    """Properties of the only resource of a type."""
    (properties,) = resources(template, kind).values()
    return properties


def output(template: Template, name: str) -> str:
    """Logical id of the resource that an output names."""
    return text(template["Outputs"][name]["Value"]).strip("<>").removesuffix(".Arn")


def text(value: Any) -> str:
    """A value as one line: references as ``<name>`` or ``<name.attribute>``."""
    match value:
        case str():
            return value
        case {"Fn::Join": [delimiter, parts]}:
            return str(delimiter).join(text(part) for part in parts)
        case {"Fn::GetAtt": [name, attribute]}:
            return f"<{name}.{attribute}>"
        case {"Fn::Sub": str(written)}:
            return written.replace("${", "<").replace("}", ">")
        case {"Fn::ImportValue": name}:
            return f"<{name}>"
        case {"Ref": name}:
            return f"<{name}>"
    raise AssertionError(f"no plain value: {value}")


def role_statements(template: Template) -> Iterator[Statement]:
    """What the policies of all roles say."""
    for name, role in resources(template, "AWS::IAM::Role").items():
        for policy in role.get("Policies", ()):
            yield from _statements(name, policy["PolicyDocument"])
    for policy in resources(template, "AWS::IAM::Policy").values():
        for role in policy["Roles"]:
            yield from _statements(text(role).strip("<>"), policy["PolicyDocument"])


def bucket_statements(template: Template) -> Iterator[Statement]:
    """What the policies of all buckets say."""
    for policy in resources(template, "AWS::S3::BucketPolicy").values():
        yield from _statements(text(policy["Bucket"]).strip("<>"), policy["PolicyDocument"])


def _statements(holder: str, document: dict[str, Any]) -> Iterator[Statement]:
    for body in document["Statement"]:
        actions, targets = (frozenset(map(text, _listed(body[key]))) for key in ("Action", "Resource"))
        yield Statement(holder, body["Effect"], actions, targets, body)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]

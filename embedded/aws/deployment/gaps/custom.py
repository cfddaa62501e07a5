"""Custom resources of the CDK, whose providers are programs for Node: what they do is done here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from botocore import xform_name

from embedded.aws.deployment.resources import Made, Rule, Wanted


def _call(wanted: Wanted) -> Made:
    """AwsCustomResource: one call of an API with the rights of the provider's role, whose answer has the attributes."""
    if "Create" not in wanted.properties:
        return Made(wanted.name)  # it calls when it is deleted
    call = json.loads(wanted.properties["Create"])
    provider = wanted.api.client("lambda").get_function_configuration(FunctionName=wanted.properties["ServiceToken"])
    service = wanted.api.client_of(provider["Role"], call["service"].removeprefix("@aws-sdk/client-").lower())
    answer = getattr(service, xform_name(call["action"]))(**call.get("parameters", {}))
    flat = dict(_flattened(answer))
    named = call["physicalResourceId"]
    identifier = named["id"] if "id" in named else flat[named["responsePath"]]
    asked = call.get("outputPaths")
    return Made(identifier, {path: flat[path] for path in (flat if asked is None else asked)})


def _flattened(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield path, str(value)
        return
    for key, item in items:
        yield from _flattened(item, f"{path}.{key}" if path else str(key))


def _auto_delete(wanted: Wanted) -> Made:
    """Its provider empties the bucket when the stack goes, and does nothing before."""
    return Made(f"{wanted.properties['BucketName']}-objects")


RULES: Final = (
    Rule("custom-aws-call", "Custom::AWS", "the provider, a program for Node, is not run", _call),
    Rule(
        "custom-s3-auto-delete",
        "Custom::S3AutoDeleteObjects",
        "the provider, a program for Node, is not run",
        _auto_delete,
    ),
)

"""What SageMaker looks at before there is a job: the request's values, the role and the input."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from botocore.exceptions import ClientError
from moto.core.utils import get_service_model
from moto.sagemaker.exceptions import ValidationError

from embedded.aws.account import REGION, client
from embedded.aws.host import Host
from embedded.aws.iam.trust import NotTrusted, check_trust
from embedded.aws.training.data import split_uri

PRINCIPAL = "sagemaker.amazonaws.com"
"""Whom a job's role trusts."""
_SHOWN = 80


def check_request(operation: str, parameters: Mapping[str, Any]) -> None:
    """Raise ValidationError when values break the limits of the service's model, which clients do not look at."""
    shape = get_service_model("sagemaker").operation_model(operation).input_shape
    faults = list(_faults(shape, parameters, ""))
    if operation == "CreateTrainingJob":
        faults += _faults_of_job(parameters)
    if faults:
        plural = "s" if len(faults) > 1 else ""
        raise ValidationError(f"{len(faults)} validation error{plural} detected: {'; '.join(faults)}")


def check_role(role_arn: str) -> None:
    """Raise ValidationError when the role does not exist or does not trust SageMaker."""
    try:
        check_trust(role_arn, PRINCIPAL)
    except NotTrusted as exc:
        raise ValidationError(str(exc)) from exc


def check_input(host: Host, parameters: Mapping[str, Any]) -> None:
    """Raise ValidationError when the job's role finds nothing under an S3 prefix of the input."""
    role = parameters["RoleArn"]
    for channel in parameters.get("InputDataConfig") or ():
        uri = channel["DataSource"].get("S3DataSource", {}).get("S3Uri", "")
        if not uri:
            continue
        bucket, prefix = split_uri(uri)
        s3 = client("s3", host.endpoint, host.credentials(role, "SageMaker", PRINCIPAL))
        try:
            found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)["KeyCount"]
            answer = ""
        except ClientError as exc:
            found, answer = 0, f" Error message from S3: {exc}"
        if not found:
            raise ValidationError(
                f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket'
                f" exists in the selected region ({REGION}), that objects exist under that S3 prefix, and that the"
                f' role "{role}" has "s3:ListBucket" permissions on bucket "{bucket}".{answer}'
            )


def _faults_of_job(parameters: Mapping[str, Any]) -> Iterator[str]:
    """What the model leaves open, because there are jobs of other kinds than these."""
    for name in ("AlgorithmSpecification", "ResourceConfig"):
        if not parameters.get(name):
            yield f"{name} is missing"
    specification = parameters.get("AlgorithmSpecification") or {}
    if specification and not specification.get("TrainingImage"):
        yield "AlgorithmSpecification.TrainingImage is missing: the embedded SageMaker has no algorithms of its own"
    for metric in specification.get("MetricDefinitions") or ():
        try:
            re.compile(metric["Regex"])
        except re.error as exc:
            yield f"Regex {metric['Regex']!r} of metric {metric['Name']} is no regular expression: {exc}"


def _faults(shape: Any, value: Any, place: str) -> Iterator[str]:
    """What breaks the greatest and least values and lengths, the enums and the patterns of a shape."""
    size = len(value) if hasattr(value, "__len__") else value
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    kind = "value" if size is value else "length"
    if least is not None and size < least:
        yield _fault(place, value, f"Member must have {kind} greater than or equal to {least}")
    if most is not None and size > most:
        yield _fault(place, value, f"Member must have {kind} less than or equal to {most}")
    match shape.type_name:
        case "structure":
            for name in shape.members.keys() & value.keys():
                yield from _faults(shape.members[name], value[name], f"{place}.{name}".lstrip("."))
        case "list":
            for number, item in enumerate(value, 1):
                yield from _faults(shape.member, item, f"{place}.{number}.member")
        case "map":
            for name, item in value.items():
                yield from _faults(shape.key, name, f"{place}.{name}")
                yield from _faults(shape.value, item, f"{place}.{name}")
        case "string":
            if shape.enum and value not in shape.enum:
                yield _fault(place, value, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
            pattern = _compiled(shape.metadata.get("pattern", ""))
            if pattern and not pattern.fullmatch(value):
                yield _fault(place, value, f"Member must satisfy regular expression pattern: {pattern.pattern}")


def _fault(place: str, value: Any, constraint: str) -> str:
    text = str(value)
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return f"Value '{shown}' at '{place}' failed to satisfy constraint: {constraint}"


@cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """A pattern of the model; None for those that only Java understands."""
    try:
        return re.compile(pattern) if pattern else None
    except re.error:
        return None

"""What a task asks of a service, held against the service's own API model, which botocore carries.

botocore's validator looks at names, types and the least lengths. Enums, patterns and the greatest lengths are left
to the service: a wrong one would be found hours into an execution.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import botocore.loaders
from botocore.model import ServiceModel

_ARN = "arn:aws:states:::"


class Request(NamedTuple):
    """A call of a service's operation, in the names of Step Functions: all of them begin with a capital."""

    service: str
    operation: str
    parameters: Any


def faults(request: Request) -> list[str]:
    """What the service would refuse, each as ``place: reason``."""
    return list(_faults(_model(request.service).operation_model(request.operation).input_shape, request.parameters, ""))


def request(resource: str, parameters: Mapping[str, Any]) -> Request:
    """The call that a Task state of this resource makes; KeyError for one that is not known here."""
    service, operation, convert = _INTEGRATIONS[resource.removeprefix(_ARN)]
    return Request(service, operation, convert(parameters))


# --- the integrations of Step Functions ---------------------------------------------------------


def _as_they_are(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    return parameters


def _invocation(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**parameters, "Payload": json.dumps(parameters["Payload"])}


def _new_cluster(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """RunJobFlow's, but for steps; the cluster must not end by itself before the first one comes."""
    if "Steps" in parameters or parameters["Instances"].get("KeepJobFlowAliveWhenNoSteps") is not True:
        raise ValueError("createCluster takes no Steps, and needs Instances.KeepJobFlowAliveWhenNoSteps")
    return parameters


def _new_step(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    rest = {name: value for name, value in parameters.items() if name not in {"ClusterId", "Step"}}
    return {**rest, "JobFlowId": parameters["ClusterId"], "Steps": [parameters["Step"]]}


def _cluster_to_end(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    rest = {name: value for name, value in parameters.items() if name != "ClusterId"}
    return {**rest, "JobFlowIds": [parameters["ClusterId"]]}


_Convert = Callable[[Mapping[str, Any]], Mapping[str, Any]]
_INTEGRATIONS: Mapping[str, tuple[str, str, _Convert]] = {
    "lambda:invoke": ("lambda", "Invoke", _invocation),
    "batch:submitJob.sync": ("batch", "SubmitJob", _as_they_are),
    "sagemaker:createTrainingJob.sync": ("sagemaker", "CreateTrainingJob", _as_they_are),
    "elasticmapreduce:createCluster.sync": ("emr", "RunJobFlow", _new_cluster),
    "elasticmapreduce:addStep.sync": ("emr", "AddJobFlowSteps", _new_step),
    "elasticmapreduce:terminateCluster": ("emr", "TerminateJobFlows", _cluster_to_end),
    "sns:publish": ("sns", "Publish", _as_they_are),
    "aws-sdk:autoscaling:setDesiredCapacity": ("autoscaling", "SetDesiredCapacity", _as_they_are),
}

# --- the walk over a model's shapes -------------------------------------------------------------


@cache
def _model(service: str) -> ServiceModel:
    return ServiceModel(botocore.loaders.Loader().load_service_model(service, "service-2"), service)


def _faults(shape: Any, value: Any, place: str) -> Iterator[str]:
    kind = shape.type_name
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        yield f"{place}: {value!r} is no {kind}"
        return
    size = len(value) if hasattr(value, "__len__") else value
    if not shape.metadata.get("min", size) <= size <= shape.metadata.get("max", size):
        yield f"{place}: {size} is not within {shape.metadata.get('min')} and {shape.metadata.get('max')}"
    match kind:
        case "structure":
            yield from _structure_faults(shape, value, place)
        case "list":
            for number, item in enumerate(value):
                yield from _faults(shape.member, item, f"{place}[{number}]")
        case "map":
            for name, item in value.items():
                yield from _faults(shape.key, name, f"{place}.{name}")
                yield from _faults(shape.value, item, f"{place}.{name}")
        case "string":
            if shape.enum and value not in shape.enum:
                yield f"{place}: {value!r} is none of {', '.join(shape.enum)}"
            if (pattern := shape.metadata.get("pattern")) and not _compiled(pattern).fullmatch(value):
                yield f"{place}: {value!r} does not match {pattern}"


def _structure_faults(shape: Any, value: Mapping[str, Any], place: str) -> Iterator[str]:
    members = {name[0].upper() + name[1:]: name for name in shape.members}
    if unknown := sorted(value.keys() - members.keys()):
        yield f"{place}: {', '.join(unknown)} is none of {', '.join(members)}"
    given = {members[name]: item for name, item in value.items() if name in members}
    if missing := sorted(set(shape.required_members) - given.keys()):
        yield f"{place}: {', '.join(missing)} is missing"
    for name, item in given.items():
        yield from _faults(shape.members[name], item, f"{place}.{name}")


_TYPES: Mapping[str, Any] = {
    "structure": dict,
    "list": list,
    "map": dict,
    "string": str,
    "blob": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
}

_JAVA = {
    r"\p{L}\p{Z}\p{N}": r"\w\s",  # in character classes only, which have an underscore of their own
    r"\p{Alnum}": "A-Za-z0-9",
    r"\uD800\uDC00-\uDBFF\uDFFF": r"\U00010000-\U0010FFFF",
}
"""How the models spell what Python's patterns spell otherwise."""


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    for java, python in _JAVA.items():
        pattern = pattern.replace(java, python)
    return re.compile(pattern)

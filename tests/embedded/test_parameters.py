"""CloudFormation's properties as parameters of the APIs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from embedded.aws.account import client
from embedded.aws.deployment.parameters import UnknownProperty, fit

Fitted = Callable[[str, str, dict[str, Any]], Any]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    """Properties fitted to the input of a service's operation."""

    def fit_to(service: str, operation: str, properties: dict[str, Any]) -> Any:
        known = client(service, "http://127.0.0.1:1")
        return fit(properties, known.meta.service_model.operation_model(operation).input_shape)

    return fit_to


def test_names_differ_in_their_capitals_at_every_depth(fitted: Fitted) -> None:
    properties = {"ComputeResources": {"MaxvCpus": 4, "Subnets": ["s"]}, "Type": "MANAGED"}
    expected = {"computeResources": {"maxvCpus": 4, "subnets": ["s"]}, "type": "MANAGED"}
    assert fitted("batch", "CreateComputeEnvironment", properties) == expected


def test_keys_of_maps_stay_as_they_are(fitted: Fitted) -> None:
    options = {"LogDriver": "awslogs", "Options": {"Mode": "x", "awslogs-group": "g"}}
    properties = {"ContainerProperties": {"LogConfiguration": options}}
    container = fitted("batch", "RegisterJobDefinition", properties)["containerProperties"]
    assert container["logConfiguration"]["options"] == {"Mode": "x", "awslogs-group": "g"}


def test_numbers_and_truths_may_be_strings(fitted: Fitted) -> None:
    group = {"MaxSize": "4", "NewInstancesProtectedFromScaleIn": "false"}
    expected = {"MaxSize": 4, "NewInstancesProtectedFromScaleIn": False}
    assert fitted("autoscaling", "CreateAutoScalingGroup", group) == expected
    assert fitted("cloudwatch", "PutMetricAlarm", {"Threshold": "0.5"}) == {"Threshold": 0.5}


def test_documents_may_be_objects(fitted: Fitted) -> None:
    assert fitted("kms", "CreateKey", {"Policy": {"Statement": []}}) == {"Policy": '{"Statement": []}'}


def test_tags_take_the_form_of_the_service(fitted: Fitted) -> None:
    tags = {"Tags": [{"Key": "team", "Value": "x"}]}
    assert fitted("kms", "CreateKey", tags) == {"Tags": [{"TagKey": "team", "TagValue": "x"}]}
    assert fitted("lambda", "CreateFunction", tags) == {"Tags": {"team": "x"}}
    assert fitted("stepfunctions", "CreateStateMachine", tags) == {"tags": [{"key": "team", "value": "x"}]}


def test_a_property_without_a_place_is_an_error_that_names_it(fitted: Fitted) -> None:
    with pytest.raises(UnknownProperty, match=r"property Timeout.Seconds .* it takes attemptDurationSeconds"):
        fitted("batch", "RegisterJobDefinition", {"Timeout": {"Seconds": 1}})

"""A Task state of one of the integrations, as moto's interpreter evaluates it.

It ends what it started when it does not wait for it any longer: after a timeout, or when the execution was stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

import botocore.session
from botocore.exceptions import ClientError
from moto.stepfunctions.parser.api import HistoryEventType, TaskFailedEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name.error_name import ErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.state.exec.state_parallel import branches_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import state_task_factory
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_aws_sdk,
    state_task_service_callback,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.resource import ResourceCondition
from moto.stepfunctions.parser.asl.component.state.fail import state_fail
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.utils import boto_client

from embedded.aws.states.answers import ask
from embedded.aws.states.integrations import INTEGRATIONS, Action, Integration, Unsuccessful

_POLL_S = 0.3
_SDK_NAMES = {"autoscaling": "AutoScaling", "batch": "Batch", "emr": "Emr", "s3": "S3", "sagemaker": "SageMaker"}
"""How errors of ``aws-sdk`` integrations begin."""


class LocalService(state_task_service_callback.StateTaskServiceCallback):  # type: ignore[misc]
    """A Task state of one of the integrations, in the place where moto's interpreter looks for it."""

    def __init__(self, integration: Integration) -> None:
        super().__init__(
            # With the second one moto makes the endpoint that it closes after either.
            supported_integration_patterns={ResourceCondition.Sync, ResourceCondition.WaitForTaskToken}
        )
        self._integration = integration

    @property
    def _action(self) -> Action:
        return self._integration.actions[self.resource.api_action]

    def _validate_service_integration_is_supported(self) -> None:
        action = self._integration.actions.get(self.resource.api_action)
        waits = self.resource.condition is not None
        if action is None or (waits and (self.resource.condition != ResourceCondition.Sync or action.waiting is None)):
            raise ValueError(f"The resource provided {self.resource.resource_arn} not recognized.")

    def _eval_service_task(
        self, env: Any, resource_runtime_part: Any, normalised_parameters: dict[str, Any], state_credentials: Any
    ) -> None:
        request = self._request(normalised_parameters)
        response = ask(self._client(resource_runtime_part, state_credentials), self._action.operation, **request)
        env.stack.append(self._action.answer(_plain(response)))

    def _request(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The call's parameters; Step Functions capitalises the names that the API may begin with a small letter."""
        made = self._action.request(json.loads(json.dumps(parameters)))
        self._to_boto_request(made, _input_shape(self._integration.boto_name, self._action.operation))
        return made

    def _client(self, resource_runtime_part: Any, state_credentials: Any) -> Any:
        return boto_client.boto_client_for(
            region=resource_runtime_part.region,
            service=self._integration.boto_name,
            state_credentials=state_credentials,
        )

    def _build_sync_resolver(
        self, env: Any, resource_runtime_part: Any, normalised_parameters: dict[str, Any], state_credentials: Any
    ) -> tuple[Callable[[], Any], Callable[[], None]]:
        """How to ask for the end, and how to bring it about."""
        waiting = self._action.waiting
        if waiting is None:
            raise ValueError(f"{self.resource.resource_arn} cannot be waited for")
        name = self._action.identify(env.stack.pop(), self._request(normalised_parameters))

        def service() -> Any:  # again each time: it may be waited for longer than credentials last
            return self._client(resource_runtime_part, state_credentials)

        def find() -> Any:
            found = waiting.find(service(), name)
            return None if found is None else _plain(found)

        return find, lambda: waiting.cancel(service(), name)

    def _eval_sync(self, env: Any, sync_resolver: Any, *args: Any, **named: Any) -> Any:
        """Wait; what is no longer waited for is ended."""
        find, cancel = sync_resolver
        while env.is_running():
            if (outcome := find()) is not None:
                return outcome
            time.sleep(_POLL_S)
        cancel()
        return None

    def _from_error(self, env: Any, ex: Exception) -> Any:
        if isinstance(ex, FailureEventException):
            return ex.failure_event
        if isinstance(ex, Unsuccessful):
            return self._failure(env, "States.TaskFailed", json.dumps(_plain(ex.described)))
        if isinstance(ex, ClientError):
            return self._failure(env, self._error_name(ex), _cause(self._integration.errors, ex))
        return super()._from_error(env=env, ex=ex)

    def _error_name(self, error: ClientError) -> str:
        code = error.response["Error"]["Code"]
        modelled = code in _error_shapes(self._integration.boto_name, self._action.operation)
        return f"{self._integration.errors}.{code if modelled else self._integration.unnamed_error}"

    def _failure(self, env: Any, error: str, cause: str) -> Any:
        details = TaskFailedEventDetails(
            resource=self._get_sfn_resource(), resourceType=self._get_sfn_resource_type(), error=error, cause=cause
        )
        return FailureEvent(
            env=env,
            error_name=ErrorName(error),
            event_type=HistoryEventType.TaskFailed,
            event_details=EventDetails(taskFailedEventDetails=details),
        )


def _cause(service: str, error: ClientError) -> str:
    metadata = error.response["ResponseMetadata"]
    return (
        f"{error.response['Error']['Message']} (Service: {service}; Status Code: {metadata['HTTPStatusCode']};"
        f" Error Code: {error.response['Error']['Code']}; Request ID: {metadata.get('RequestId', '')}; Proxy: null)"
    )


@cache
def _operation(service: str, operation: str) -> Any:
    model = botocore.session.get_session().get_service_model(service)
    names = {name.lower(): name for name in model.operation_names}
    return model.operation_model(names[operation.replace("_", "")])


def _input_shape(service: str, operation: str) -> Any:
    return _operation(service, operation).input_shape


def _error_shapes(service: str, operation: str) -> set[str]:
    return {shape.name for shape in _operation(service, operation).error_shapes}


def _plain(value: Any) -> Any:
    """As JSON has it; instants as milliseconds."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value.timestamp() * 1000) if isinstance(value, datetime) else value


def install() -> None:
    """Put the integrations where moto's parser looks for them."""
    original = state_task_factory.state_task_service_for

    def service_for(service_name: str) -> Any:
        integration = INTEGRATIONS.get(service_name)
        return LocalService(integration) if integration else original(service_name)

    state_task_factory.state_task_service_for = service_for
    # moto refuses names of the language's own, such as States.TaskFailed, where a branch or a Fail state hands them on.
    branches_decl.CustomErrorName = ErrorName
    state_fail.CustomErrorName = ErrorName
    state_task_service_aws_sdk._SERVICE_ERROR_NAMES.update(_SDK_NAMES)

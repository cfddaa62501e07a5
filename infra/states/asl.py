"""The few forms of states that the definition is made of.

Everything here makes plain dictionaries of the Amazon States Language with JSONPath, as the console shows it:
https://states-language.net/spec.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

State = dict[str, Any]
States = dict[str, State]

LAMBDA_FAULTS = (
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
    "StorageError",  # ours: S3 did not answer
)
FLEET_FAULTS = ("AutoScaling.AutoScalingException", "AutoScaling.ScalingActivityInProgressException")
BATCH_FAULTS = ("Batch.AWSBatchException", "Batch.BatchException", "Batch.ServerException")
SAGEMAKER_FAULTS = ("SageMaker.AmazonSageMakerException",)
EMR_FAULTS = ("ElasticMapReduce.AmazonElasticMapReduceException",)
SNS_FAULTS = ("SNS.AmazonSNSException", "SNS.SnsException")
"""What the services' own calls fail with. A job that fails is States.TaskFailed, and is not tried again here."""


def task(
    resource: str,
    parameters: Mapping[str, Any],
    *,
    retry: Sequence[Mapping[str, Any]],
    timeout_s: int,
    select: Mapping[str, Any] | None = None,
    into: str | None = None,
) -> State:
    """A call of a service. Its selected result is put at `into`; without one the input goes on unchanged."""
    return {
        "Type": "Task",
        "Resource": resource,
        "Parameters": dict(parameters),
        **({"ResultSelector": dict(select)} if select else {}),
        "ResultPath": into,
        "TimeoutSeconds": timeout_s,
        "Retry": [dict(rule) for rule in retry],
    }


def backoff(*errors: str, attempts: int = 5, first_s: int = 2, at_most_s: int = 60) -> State:
    """Try again, waiting twice as long each time, with full jitter."""
    return {
        "ErrorEquals": list(errors),
        "IntervalSeconds": first_s,
        "MaxAttempts": attempts,
        "BackoffRate": 2,
        "MaxDelaySeconds": at_most_s,
        "JitterStrategy": "FULL",
    }


def call(
    function: str,
    *,
    into: str | None,
    fields: Sequence[str] = (),
    payload: Mapping[str, Any] | None = None,
    timeout_s: int = 120,
) -> State:
    """A Lambda with `payload` (the whole input without one); `fields` of its answer are put at `into`."""
    return task(
        "arn:aws:states:::lambda:invoke",
        {"FunctionName": function, **({"Payload": dict(payload)} if payload else {"Payload.$": "$"})},
        retry=[backoff(*LAMBDA_FAULTS)],
        timeout_s=timeout_s,
        select={f"{field}.$": f"$.Payload.{field}" for field in fields},
        into=into,
    )


def when(path: str, then: str, otherwise: str) -> State:
    """Go to `then` where the boolean at `path` is true."""
    return {
        "Type": "Choice",
        "Choices": [{"Variable": path, "BooleanEquals": True, "Next": then}],
        "Default": otherwise,
    }


def chain(states: States, then: str) -> States:
    """Each state that does not yet say what follows goes on to the one below it, the last one to `then`."""
    names = [*states, then]
    return {
        name: state if state["Type"] in {"Choice", "Fail", "Succeed"} or "Next" in state else {**state, "Next": after}
        for (name, state), after in zip(states.items(), names[1:], strict=True)
    }

"""What is deployed, as its stacks tell it, and AWS's errors in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app import contract
from app.errors import SettingsError, TrainingError

_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 9})  # a sweep takes hours: it outlasts a minute
MACHINE_OUTPUT = "StateMachine"
_BUCKETS = {
    contract.ENV_MARKET_BUCKET: "MarketBucket",
    contract.ENV_MODEL_BUCKET: "ModelBucket",
    contract.ENV_PREDICTIONS_BUCKET: "PredictionsBucket",
}
"""Outputs of the data stack, by the variables that hold the same."""


def bucket_names(environ: Mapping[str, str], deployment: str) -> dict[str, str]:
    """The three buckets by their variables: the environment's, or those of the deployment's data stack."""
    if all(environ.get(name) for name in _BUCKETS):
        return {name: environ[name] for name in _BUCKETS}
    found = read_outputs(f"{deployment}-data")
    return {name: found[output] for name, output in _BUCKETS.items()}


def read_outputs(stack: str) -> dict[str, str]:
    """Outputs of a stack by name; SettingsError when there is no such stack."""
    cloudformation = connect("cloudformation")
    try:
        with asking_aws():
            described = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    except TrainingError as exc:
        raise SettingsError(
            f"no stack {stack} tells where to train ({exc}): name another with --deployment, or point AWS_* at it:"
            ' `eval "$(stockflow up)"` does so for the embedded AWS'
        ) from exc
    return {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", ())}


def connect(service: str) -> Any:
    """A client by the user's own configuration; SettingsError when that is not enough for one."""
    try:
        return boto3.client(service, config=_CONFIG)
    except (BotoCoreError, ValueError) as exc:
        raise SettingsError(f"AWS cannot be asked ({exc}): set AWS_PROFILE and AWS_REGION") from exc


@contextmanager
def asking_aws() -> Iterator[None]:
    """What AWS refuses, or that nobody answers, is a TrainingError."""
    try:
        yield
    except ClientError as exc:
        raise TrainingError(f"AWS refuses: {exc}") from exc
    except BotoCoreError as exc:
        raise TrainingError(f"AWS does not answer: {exc}") from exc

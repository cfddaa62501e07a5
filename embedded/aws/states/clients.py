"""Whom Step Functions calls services as: the state machine's role, where moto has made-up keys."""

from __future__ import annotations

import sys
from typing import Any

import boto3
from botocore.config import Config
from moto.stepfunctions.parser.asl.utils import boto_client

from embedded.aws.account import REGION, Credentials
from embedded.aws.host import Host

_PACKAGE = "moto.stepfunctions."
_NAME = "boto_client_for"
_SESSION = "StepFunctions"
_LAMBDA_LIMIT_S = 900 + 60
"""A call waits for its answer: the longest is that of a Lambda, 15 minutes."""


def install(host: Host) -> None:
    """Give all integrations clients of the machine's role."""
    issued: dict[str, Credentials] = {}

    def client_for(region: str, service: str, state_credentials: Any = None) -> Any:
        role = state_credentials.role_arn
        if role not in issued:
            issued[role] = host.credentials(role, _SESSION)
        credentials = issued[role]
        return boto3.client(
            service,
            endpoint_url=host.endpoint,
            region_name=region or REGION,
            aws_access_key_id=credentials.key_id,
            aws_secret_access_key=credentials.secret,
            aws_session_token=credentials.token,
            config=Config(
                parameter_validation=False,  # the service itself says what is wrong
                retries={"total_max_attempts": 1},  # the definition says what is tried again
                read_timeout=_LAMBDA_LIMIT_S,
            ),
        )

    original = getattr(boto_client, _NAME)
    for name, module in list(sys.modules.items()):
        if name.startswith(_PACKAGE) and getattr(module, _NAME, None) is original:
            setattr(module, _NAME, client_for)

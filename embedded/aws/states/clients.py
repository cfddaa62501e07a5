"""Whom Step Functions calls services as: the state machine's role, where moto has made-up keys."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from typing import Any

from botocore.config import Config
from moto.stepfunctions.parser.asl.utils import boto_client

from embedded.aws.account import client
from embedded.aws.host import Host

_PACKAGE = "moto.stepfunctions."
_NAME = "boto_client_for"
_SESSION = "StepFunctions"
_PRINCIPAL = "states.amazonaws.com"
_RENEWED_AFTER_S = 3600.0
"""Credentials last twelve hours; a call made with them may take its time."""
_LAMBDA_LIMIT_S = 900 + 60
"""A call waits for its answer: the longest is that of a Lambda, 15 minutes."""
_CONFIG = Config(
    parameter_validation=False,  # the service itself says what is wrong
    retries={"total_max_attempts": 1},  # the definition says what is tried again
    read_timeout=_LAMBDA_LIMIT_S,
    max_pool_connections=50,
)


class RoleClients:
    """Clients by role and service, each used for a while and then made anew with other credentials."""

    def __init__(self, host: Host, *, renewed_after_s: float = _RENEWED_AFTER_S) -> None:
        self._host = host
        self._renewed_after_s = renewed_after_s
        self._made: dict[tuple[str, str], tuple[float, Any]] = {}
        self._lock = threading.Lock()

    def find(self, role: str, service: str) -> Any:
        """A boto3 client; NotTrusted where Step Functions cannot act as the role."""
        with self._lock:
            made_at, found = self._made.get((role, service), (-self._renewed_after_s, None))
            if time.monotonic() - made_at >= self._renewed_after_s:
                credentials = self._host.credentials(role, _SESSION, _PRINCIPAL)
                found = client(service, self._host.endpoint, credentials, _CONFIG)
                found.meta.events.register("after-call", _identify)
                self._made[role, service] = time.monotonic(), found
        return found


def _identify(parsed: dict[str, Any], **_: Any) -> None:
    """Give an answer the request id that moto's integrations read in errors, and that not all of its services send."""
    metadata = parsed.setdefault("ResponseMetadata", {})
    metadata["RequestId"] = metadata.get("RequestId") or str(uuid.uuid4())


def install(host: Host) -> None:
    """Give all integrations clients of the machine's role."""
    clients = RoleClients(host)

    def client_for(region: str, service: str, state_credentials: Any = None) -> Any:
        return clients.find(state_credentials.role_arn, service)

    original = getattr(boto_client, _NAME)
    for name, module in list(sys.modules.items()):
        if name.startswith(_PACKAGE) and getattr(module, _NAME, None) is original:
            setattr(module, _NAME, client_for)

"""The account, the region and the credentials of the embedded AWS, and clients that talk to it alone."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

ACCOUNT = "123456789012"
"""moto's own."""
REGION = "us-east-1"
PARTITION = "aws"


@dataclass(frozen=True)
class Credentials:
    """What a request is signed with. token: of temporary credentials; empty for an operator's."""

    key_id: str
    secret: str
    token: str = ""

    def environ(self) -> dict[str, str]:
        """The variables in which every AWS SDK finds them."""
        token = {"AWS_SESSION_TOKEN": self.token} if self.token else {}
        return {"AWS_ACCESS_KEY_ID": self.key_id, "AWS_SECRET_ACCESS_KEY": self.secret, **token}


_CREATING = threading.Lock()
"""boto3 makes clients of one session, which threads may not share."""

OPERATOR = Credentials("embedded", "embedded")
"""Who may do everything: the person at the machine, and the deployment."""


_NO_PROXY = Config(proxies={})


def client(service: str, endpoint: str, credentials: Credentials = OPERATOR, config: Config | None = None) -> Any:
    """A boto3 client of the embedded AWS, whatever the environment says: a proxy would not find this machine."""
    with _CREATING:
        return boto3.client(
            service,
            endpoint_url=endpoint,
            region_name=REGION,
            aws_access_key_id=credentials.key_id,
            aws_secret_access_key=credentials.secret,
            aws_session_token=credentials.token or None,
            config=_NO_PROXY.merge(config) if config else _NO_PROXY,
        )

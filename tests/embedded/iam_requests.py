"""Requests as boto3 writes them, caught before they are sent, and what they ask IAM for."""

from __future__ import annotations

from functools import cache
from typing import Any

from botocore.awsrequest import AWSPreparedRequest
from moto.core.request import Request

from embedded.aws.account import ACCOUNT, REGION, Credentials, client
from embedded.aws.iam.checks import Check
from embedded.aws.iam.requests import checks
from embedded.aws.iam.roles import Roles
from embedded.aws.iam.wire import Environ, Operation, read_operation, read_signature

ENDPOINT = "http://127.0.0.1:5000"
HERE = f"{REGION}:{ACCOUNT}"
WORKER = Credentials("ASIAWORKER", "secret", "token")
ROLE = f"arn:aws:iam::{ACCOUNT}:role/worker"


class _Caught(Exception):
    def __init__(self, request: AWSPreparedRequest) -> None:
        super().__init__()
        self.request = request


@cache
def catching_client(service: str) -> Any:
    """A boto3 client that raises what it would send."""
    made = client(service, ENDPOINT, WORKER)

    def catch(request: AWSPreparedRequest, **_: Any) -> None:
        raise _Caught(request)

    made.meta.events.register("before-send", catch)
    return made


def environ_of(service: str, method: str, **parameters: Any) -> Environ:
    """The WSGI environment in which a server finds a call of boto3."""
    try:
        getattr(catching_client(service), method)(**parameters)
    except _Caught as caught:
        request = caught.request
        made: Environ = Request.from_primitives(request.method, request.url, request.headers, request.body).environ
        return made
    raise AssertionError(f"{service} {method} sent nothing")


def operation_of(environ: Environ) -> Operation | None:
    """What the guard reads in a request."""
    signature = read_signature(environ)
    assert signature is not None
    return read_operation(environ, signature)


def asked(service: str, method: str, **parameters: Any) -> list[Check]:
    """All that a call of boto3 asks IAM for."""
    operation = operation_of(environ_of(service, method, **parameters))
    assert operation is not None
    return checks(operation, Roles())


def asked_for(service: str, method: str, **parameters: Any) -> list[tuple[str, str]]:
    """Actions and resources of a call."""
    return [(check.action, check.resource) for check in asked(service, method, **parameters)]

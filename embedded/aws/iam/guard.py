"""The guard in front of moto: every request of a role is decided on, and refused as AWS refuses.

moto's own enforcement knows neither resources nor conditions and stays switched off. Signatures are not verified: on
one machine nobody is kept out by them. Loopback counts as TLS 1.3, since on AWS the same call goes over TLS.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication

from moto.core.utils import utcnow
from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket

from embedded.aws.account import ACCOUNT, OPERATOR
from embedded.aws.iam.checks import Check
from embedded.aws.iam.context import Context
from embedded.aws.iam.decisions import Decision, Holdings, decide
from embedded.aws.iam.policies import BadPolicy, Call, Caller, read_policy
from embedded.aws.iam.record import Record
from embedded.aws.iam.refusals import DENIED, EXPIRED, UNKNOWN_KEY, UNSIGNED, Refusal, refuse
from embedded.aws.iam.requests import checks
from embedded.aws.iam.resources import attached_policy, resource_tags
from embedded.aws.iam.roles import Role, Roles, Sessions
from embedded.aws.iam.wire import Environ, Operation, Signature, protocol_of, read_operation, read_signature

_OPEN = re.compile(r"/moto-api(/|$)|/_embedded(/|$)|/cloudformation_[^/]+/cfnresponse$")
"""Paths that are no service's: the machine's own, and the address to which custom resources answer without signing."""


def install() -> None:
    """Leave bucket policies to the guard: moto takes a Deny for one whatever its conditions say.

    Called once in the server's process, before its first request.
    """
    FakeBucket.get_permission = lambda bucket, action, resource: PermissionResult.NEUTRAL


class Guard:
    """WSGI middleware that lets through what IAM allows, and notes every call of a role in the record.

    The operator may do everything and is not recorded.
    """

    def __init__(self, app: WSGIApplication, record: Record) -> None:
        self._app = app
        self._record = record
        self._sessions = Sessions()
        self._roles = Roles()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Hand the request on, or refuse it."""
        if _OPEN.match(environ.get("PATH_INFO", "")):
            return self._app(environ, start_response)
        signature = read_signature(environ)
        if signature is not None and signature.key_id == OPERATOR.key_id:
            return self._app(environ, start_response)
        refusal = self._refusal(environ, signature)
        if refusal is None:
            return self._app(environ, start_response)
        service = signature.service if signature is not None else ""
        response = refuse(refusal, service, protocol_of(environ, service))
        start_response(response.status, response.headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    def _refusal(self, environ: Environ, signature: Signature | None) -> Refusal | None:
        if signature is None:
            return Refusal(UNSIGNED, "Request is missing Authentication Token")
        session = self._sessions.find(signature.key_id)
        if session is None or session.session_token != signature.token:
            return Refusal(UNKNOWN_KEY, "The security token included in the request is invalid.")
        if session.expiration < utcnow():
            return Refusal(EXPIRED, "The security token included in the request is expired")
        operation = read_operation(environ, signature)
        if operation is None:
            asked = f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO')} of {signature.service}"
            return Refusal(DENIED, f"The embedded IAM does not know which operation this is: {asked}")
        try:
            return self._decide(environ, session, operation)
        except BadPolicy as exc:
            return Refusal(DENIED, f"A policy that User: {session.arn} depends on cannot be read: {exc}")

    def _decide(self, environ: Environ, session: Any, operation: Operation) -> Refusal | None:
        """Ask for all that the operation needs; the first thing that is not allowed refuses it."""
        role = self._roles.find(session.role_arn)
        caller = Caller(session.role_arn.rpartition("/")[2], session.role_arn, session.arn, ACCOUNT)
        holdings = _holdings(role, session)
        values = _values(environ, session, role, operation)
        decided: list[tuple[Call, Decision]] = []
        for check in checks(operation, self._roles):
            call = _call(check, values)
            attached = attached_policy(check.action, check.resource, self._roles)
            decision = decide(caller, holdings, attached, call)
            if not decision.allowed:
                self._record.saw(caller, call, decision)
                return Refusal(DENIED, _message(caller, call, decision))
            decided.append((call, decision))
        for call, decision in decided:
            self._record.saw(caller, call, decision)
        return None


def _holdings(role: Role | None, session: Any) -> Holdings:
    """A role that has been deleted since has no policies."""
    narrowed = read_policy(session.policy) if session.policy else None
    return Holdings((), None, narrowed) if role is None else Holdings(role.identity, role.boundary, narrowed)


def _values(environ: Environ, session: Any, role: Role | None, operation: Operation) -> dict[str, str]:
    """The context keys that all calls of a request have."""
    now = time.time()
    tags = {} if role is None else role.tags
    return {
        "aws:CurrentTime": datetime.fromtimestamp(now, UTC).isoformat(),
        "aws:EpochTime": str(int(now)),
        "aws:PrincipalAccount": ACCOUNT,
        "aws:PrincipalArn": session.role_arn,
        "aws:PrincipalIsAWSService": "false",
        "aws:PrincipalType": "AssumedRole",
        "aws:RequestedRegion": operation.region,
        "aws:ResourceAccount": ACCOUNT,
        "aws:SecureTransport": "true",
        "aws:SourceIp": environ.get("REMOTE_ADDR", ""),
        "aws:UserAgent": environ.get("HTTP_USER_AGENT", ""),
        "aws:ViaAWSService": "false",
        "aws:userid": f"{'' if role is None else role.id}:{session.session_name}",
        "kms:CallerAccount": ACCOUNT,
        "s3:ResourceAccount": ACCOUNT,
        "s3:TlsVersion": "1.3",
        **{f"aws:PrincipalTag/{name}": value for name, value in tags.items()},
    }


def _call(check: Check, values: Mapping[str, str | Sequence[str]]) -> Call:
    context = Context({**values, **check.values}, lambda: resource_tags(check.resource))
    return Call(check.action, check.resource, context)


def _message(caller: Caller, call: Call, decision: Decision) -> str:
    resource = f'"{call.resource}"' if call.action.startswith("s3:") else call.resource
    asked = f"perform: {call.action} on resource: {resource}"
    return f"User: {caller.session_arn} is not authorized to {asked} {decision.reason}"

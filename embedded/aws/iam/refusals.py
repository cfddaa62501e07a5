"""Errors in the form that each protocol of AWS has for them, so that SDKs raise what they raise on AWS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple
from xml.sax.saxutils import escape

from moto.core.utils import get_service_model

from embedded.aws.iam.tables import SERVICES

_FORBIDDEN = "403 Forbidden"
_REQUEST = "00000000-0000-0000-0000-000000000000"


class Refusal(NamedTuple):
    """What is wrong with a request. kind: one of the names of `_CODES`."""

    kind: str
    message: str


DENIED, UNKNOWN_KEY, UNSIGNED, EXPIRED = "denied", "unknown key", "unsigned", "expired"

_CODES: Mapping[str, Mapping[str, str]] = {
    DENIED: {"json": "AccessDeniedException", "s3": "AccessDenied", "query": "AccessDenied"},
    UNKNOWN_KEY: {
        "json": "UnrecognizedClientException",
        "s3": "InvalidAccessKeyId",
        "query": "InvalidClientTokenId",
        "ec2": "AuthFailure",
    },
    UNSIGNED: {
        "json": "MissingAuthenticationTokenException",
        "s3": "AccessDenied",
        "query": "MissingAuthenticationToken",
    },
    EXPIRED: {"json": "ExpiredTokenException", "s3": "ExpiredToken", "query": "ExpiredToken"},
}
_OF_S3 = {UNKNOWN_KEY: "The AWS Access Key Id you provided does not exist in our records.", UNSIGNED: "Access Denied"}
"""S3's own words."""
_OWN_CODES = {"ec2": "UnauthorizedOperation", "sns": "AuthorizationError"}
"""What services call a denied call that do not call it AccessDenied."""
_FAULTS = {
    "batch": "ServerException",
    "ec2": "InternalError",
    "elasticmapreduce": "InternalServerException",
    "lambda": "ServiceException",
    "s3": "InternalError",
}
"""What services call their own failure that do not call it InternalFailure."""
_OTHER_FAULTS = {429: "ThrottlingException", 503: "ServiceUnavailable"}


class Response(NamedTuple):
    """Of HTTP."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


class _Error(NamedTuple):
    """status: HTTP's, with its phrase."""

    code: str
    message: str
    status: str

    @property
    def blamed(self) -> str:
        """Whose mistake it is, in the query protocol's word."""
        return "Receiver" if self.status.startswith("5") else "Sender"


def refuse(refusal: Refusal, service: str, protocol: str) -> Response:
    """The response with which a service refuses. service: as requests are signed for it."""
    codes, denied = _CODES[refusal.kind], refusal.kind == DENIED
    match protocol:
        case "json" | "smithy-rpc-v2-cbor":
            error = _Error(codes["json"], refusal.message, "400 Bad Request")
        case "rest-json":
            error = _Error(codes["json"], refusal.message, _FORBIDDEN)
        case "rest-xml":
            status = "400 Bad Request" if refusal.kind == EXPIRED else _FORBIDDEN
            error = _Error(codes["s3"], _OF_S3.get(refusal.kind, refusal.message), status)
        case "ec2":
            code = _OWN_CODES["ec2"] if denied else codes.get("ec2", codes["query"])
            error = _Error(code, refusal.message, "401 Unauthorized" if code == "AuthFailure" else _FORBIDDEN)
        case _:
            code = _OWN_CODES.get(service, codes["query"]) if denied else codes["query"]
            error = _Error(code, refusal.message, _FORBIDDEN)
    return _respond(error, service, protocol, codes["query"])


def fail(status: int, message: str, service: str, protocol: str) -> Response:
    """The response of a service that fails by itself."""
    code = _OTHER_FAULTS.get(status) or _FAULTS.get(service, "InternalFailure")
    error = _Error(code, message, f"{status} {HTTPStatus(status).phrase}")
    return _respond(error, service, protocol, code)


def _respond(error: _Error, service: str, protocol: str, query_code: str) -> Response:
    said = f"<Code>{error.code}</Code><Message>{escape(error.message)}</Message>"
    match protocol:
        case "json" | "smithy-rpc-v2-cbor":
            return _json(error, service, query_code, cbor=protocol != "json")
        case "rest-json":
            body = json.dumps({"message": error.message}).encode()
            return _response(error.status, "application/json", body, {"x-amzn-ErrorType": error.code})
        case "rest-xml":
            body = _xml(f"<Error>{said}</Error>")
            return _response(error.status, "application/xml", body, {"x-amz-request-id": _REQUEST})
        case "ec2":
            body = _xml(f"<Response><Errors><Error>{said}</Error></Errors><RequestID>{_REQUEST}</RequestID></Response>")
            return _response(error.status, "text/xml", body)
        case _:
            error_type = f"<Type>{error.blamed}</Type>"
            body = _xml(
                f"<ErrorResponse><Error>{error_type}{said}</Error><RequestId>{_REQUEST}</RequestId></ErrorResponse>"
            )
            return _response(error.status, "text/xml", body)


def _json(error: _Error, service: str, query_code: str, *, cbor: bool) -> Response:
    """Services that spoke the query protocol before tell that protocol's code in a header."""
    headers = {"x-amzn-query-error": f"{query_code};{error.blamed}"} if _spoke_query(service) else {}
    if cbor:
        body = b"\xa2" + b"".join(map(_cbor_text, ("__type", error.code, "message", error.message)))
        return _response(error.status, "application/cbor", body, {**headers, "smithy-protocol": "rpc-v2-cbor"})
    body = json.dumps({"__type": error.code, "message": error.message}).encode()
    return _response(error.status, "application/x-amz-json-1.1", body, headers)


def _spoke_query(service: str) -> bool:
    return service in SERVICES and "awsQueryCompatible" in get_service_model(SERVICES[service].models[0]).metadata


def _cbor_text(text: str) -> bytes:
    """A text as CBOR has it: major type 3, its length in two bytes, itself."""
    encoded = text.encode()
    return b"\x79" + len(encoded).to_bytes(2) + encoded


def _xml(body: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'.encode()


def _response(status: str, content_type: str, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    fixed = {"Content-Type": content_type, "Content-Length": str(len(body)), "x-amzn-RequestId": _REQUEST}
    return Response(status, list({**fixed, **(headers or {})}.items()), body)

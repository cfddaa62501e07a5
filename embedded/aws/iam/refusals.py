"""Refusals in the form that each protocol of AWS has for errors, so that SDKs raise what they raise on AWS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple
from xml.sax.saxutils import escape

from moto.core.utils import get_service_model

from embedded.aws.iam.tables import SERVICES

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


class Response(NamedTuple):
    """Of HTTP."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


def refuse(refusal: Refusal, service: str, protocol: str) -> Response:
    """The response with which a service refuses. service: as requests are signed for it."""
    codes = _CODES[refusal.kind]
    match protocol:
        case "json" | "smithy-rpc-v2-cbor":
            return _json(codes["json"], refusal.message, service, codes["query"], cbor=protocol != "json")
        case "rest-json":
            body = json.dumps({"message": refusal.message}).encode()
            return _response("403 Forbidden", "application/json", body, {"x-amzn-ErrorType": codes["json"]})
        case "rest-xml":
            code, message = codes["s3"], _OF_S3.get(refusal.kind, refusal.message)
            body = _xml(f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>")
            return _response("400 Bad Request" if code == "ExpiredToken" else "403 Forbidden", "application/xml", body)
        case "ec2":
            code = _OWN_CODES["ec2"] if refusal.kind == DENIED else codes.get("ec2", codes["query"])
            error = f"<Code>{code}</Code><Message>{escape(refusal.message)}</Message>"
            body = _xml(
                f"<Response><Errors><Error>{error}</Error></Errors><RequestID>{_REQUEST}</RequestID></Response>"
            )
            return _response("401 Unauthorized" if code == "AuthFailure" else "403 Forbidden", "text/xml", body)
        case _:
            code = _OWN_CODES.get(service, codes["query"]) if refusal.kind == DENIED else codes["query"]
            error = f"<Type>Sender</Type><Code>{code}</Code><Message>{escape(refusal.message)}</Message>"
            body = _xml(f"<ErrorResponse><Error>{error}</Error><RequestId>{_REQUEST}</RequestId></ErrorResponse>")
            return _response("403 Forbidden", "text/xml", body)


def _json(code: str, message: str, service: str, query_code: str, *, cbor: bool) -> Response:
    """Services that spoke the query protocol before tell that protocol's code in a header."""
    headers = {"x-amzn-query-error": f"{query_code};Sender"} if _spoke_query(service) else {}
    if cbor:
        body = b"\xa2" + b"".join(map(_cbor_text, ("__type", code, "message", message)))
        return _response("400 Bad Request", "application/cbor", body, {**headers, "smithy-protocol": "rpc-v2-cbor"})
    body = json.dumps({"__type": code, "message": message}).encode()
    return _response("400 Bad Request", "application/x-amz-json-1.1", body, headers)


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

"""HTTP requests as AWS's SDKs write them: who signed one, for which service, and which operation it calls."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from botocore.exceptions import UnknownServiceError
from botocore.parsers import BaseCBORParser
from moto.core.parse import PROTOCOL_PARSERS, RequestParserError
from moto.core.request import Request, determine_request_protocol
from moto.core.routing import get_service_router
from moto.core.utils import get_service_model
from werkzeug.exceptions import NotFound

from embedded.aws.account import REGION
from embedded.aws.iam.tables import SERVICES

Environ = dict[str, Any]
"""Of WSGI."""

_CREDENTIAL = re.compile(r"Credential=([^,\s]+)")
_RPC = re.compile(r"/service/([^/]+)/operation/([^/]+)$")
_PATHS = {
    "sagemaker": (
        (re.compile(r"/endpoints/"), "sagemaker-runtime"),
        (re.compile(r"/BatchPutMetrics"), "sagemaker-metrics"),
    ),
    "s3": ((re.compile(r"/v20180820/"), "s3control"),),
}
"""Services that sign as another, told by their paths, as moto tells them."""


@dataclass(frozen=True)
class Signature:
    """service: the name that the request is signed for; token: of temporary credentials."""

    key_id: str
    region: str
    service: str
    token: str


@dataclass(frozen=True)
class Operation:
    """What a request calls. service: as it is signed; protocol: AWS's name for its form.

    parameters: by the names of AWS's API; of S3's, only what stands in the URL. body: of requests that are read.
    """

    service: str
    name: str
    protocol: str
    region: str
    parameters: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def read_signature(environ: Environ) -> Signature | None:
    """Who signed the request, by its header or by its URL; None for an unsigned one."""
    header = environ.get("HTTP_AUTHORIZATION", "")
    token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN", "")
    if found := _CREDENTIAL.search(header):
        return _scoped(found[1], token)
    if header.startswith("AWS "):
        return Signature(header[4:].partition(":")[0], REGION, "s3", token)
    query = {name.lower(): values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
    token = query.get("x-amz-security-token", "")
    if "awsaccesskeyid" in query:
        return Signature(query["awsaccesskeyid"], REGION, "s3", token)
    in_url = _scoped(query.get("x-amz-credential", ""), token)
    return in_url if in_url is not None and in_url.service == "s3" else None  # moto takes other signed URLs for S3's


def _scoped(scope: str, token: str) -> Signature | None:
    """From key/date/region/service/aws4_request; signatures for all regions have no region."""
    match scope.split("/"):
        case [key_id, _, region, service, _]:
            return Signature(key_id, region, service.lower(), token)
        case [key_id, _, service, _]:
            return Signature(key_id, REGION, service.lower(), token)
    return None


def protocol_of(environ: Environ, service: str) -> str:
    """The protocol of a request, as far as it can be told without knowing the operation."""
    if environ.get("HTTP_SMITHY_PROTOCOL") == "rpc-v2-cbor":
        return "smithy-rpc-v2-cbor"
    if service in {"s3", "ec2"}:
        return {"s3": "rest-xml"}.get(service, service)
    if "HTTP_X_AMZ_TARGET" in environ:
        return "json"
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return "query"
    return "rest-json" if service else "rest-xml"


def read_operation(environ: Environ, signature: Signature) -> Operation | None:
    """The operation that a request calls; None for one that is not known.

    What is read of the body is put back. The bodies of S3's requests are left alone, but for the list of what
    DeleteObjects deletes.
    """
    service, protocol = signature.service, protocol_of(environ, signature.service)
    if service == "s3":
        return _rest_operation(environ, signature, protocol)
    body = _read_body(environ)
    match protocol:
        case "json":
            name, parameters = environ["HTTP_X_AMZ_TARGET"].rpartition(".")[2], _json(body)
        case "smithy-rpc-v2-cbor":
            found = _RPC.search(environ.get("PATH_INFO", ""))
            if found is None:
                return None
            name, parameters = found[2], _cbor(body)
        case _:
            return _rest_operation(environ, signature, protocol, body)
    return Operation(service, name, protocol, signature.region, parameters, body=body)


def _rest_operation(environ: Environ, signature: Signature, protocol: str, body: bytes = b"") -> Operation | None:
    """By action parameter or by method and path, with moto's own router: what it carries out is what is decided on."""
    request = Request({**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
    service, model = signature.service, _model(signature.service, environ)
    try:
        operation, in_path = get_service_router(model).match(request)
        parameters = {**request.args.to_dict(), **in_path}
        if service != "s3":
            parameters = _parsed(request, model, operation, in_path, body)
        elif operation.name == "DeleteObjects":
            body = _read_body(environ)
    except (NotFound, NotImplementedError, UnknownServiceError, RequestParserError, ValueError):
        return None
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Operation(service, operation.name, protocol, signature.region, parameters, headers, body)


def _parsed(request: Request, model: str, operation: Any, in_path: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    parser = PROTOCOL_PARSERS[determine_request_protocol(get_service_model(model), request.content_type)]
    found: dict[str, Any] = parser(operation).parse(
        {
            "method": request.method,
            "values": request.values,
            "headers": request.headers,
            "body": body,
            "url_path": request.path,
            "url_params": in_path,
        }
    )
    return found


def _model(service: str, environ: Environ) -> str:
    """boto3's name of a service that requests are signed for."""
    path = environ.get("PATH_INFO", "")
    for pattern, model in _PATHS.get(service, ()):
        if pattern.match(path):
            return model
    return SERVICES[service].models[0] if service in SERVICES else service


def _read_body(environ: Environ) -> bytes:
    """The body, unpacked for reading; the next reader finds it as it came."""
    length = environ.get("CONTENT_LENGTH")
    stream = environ["wsgi.input"]
    body: bytes = stream.read() if environ.get("wsgi.input_terminated") else stream.read(int(length or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    if environ.get("HTTP_CONTENT_ENCODING") == "gzip":
        with contextlib.suppress(OSError):
            return gzip.decompress(body)
    return body


def _json(body: bytes) -> Mapping[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(body or b"{}")
        return found if isinstance(found, dict) else {}
    return {}


def _cbor(body: bytes) -> Mapping[str, Any]:
    found = BaseCBORParser().parse_data_item(io.BufferedReader(io.BytesIO(body))) if body else {}
    return found if isinstance(found, dict) else {}

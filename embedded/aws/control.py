"""What the embedded AWS answers beside AWS's services, below ``/_embedded``: who called what, and faults on demand.

GET  /_embedded/iam     the record of calls by role
POST /_embedded/faults  {"service": "s3", "status": 500, "seconds": 5}: requests of that service fail for so long
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from embedded.aws.iam.record import Record
from embedded.aws.iam.refusals import fail
from embedded.aws.iam.wire import protocol_of, read_signature

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PREFIX = "/_embedded"


class Faults:
    """Services that fail for a while: only for the tasks' requests, which carry a role's temporary credentials."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def begin(self, service: str, status: int, seconds: float) -> None:
        """Let a service, by the name that requests are signed for, answer `status`, an error's, for so long."""
        if not 400 <= HTTPStatus(status) <= 599:
            raise ValueError(f"{status} is no error's status: give one of 400 to 599")
        with self._lock:
            self._until[service] = (time.monotonic() + seconds, status)

    def around(self, app: WSGIApplication) -> WSGIApplication:
        """The application, behind the faults."""

        def failing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            fault = self._fault(environ)
            if fault is None:
                return app(environ, start_response)
            service, number = fault
            response = fail(number, "A fault that was asked for", service, protocol_of(environ, service))
            start_response(response.status, response.headers)
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

        return failing

    def _fault(self, environ: WSGIEnvironment) -> tuple[str, int] | None:
        """The service that the request is for and the status it fails with; None where it does not."""
        signature = read_signature(environ)
        if signature is None or not signature.token:
            return None
        with self._lock:
            until, status = self._until.get(signature.service, (0.0, 0))
        return (signature.service, status) if time.monotonic() < until else None


class Control:
    """WSGI application: its own paths, and everything else handed on."""

    def __init__(self, app: WSGIApplication, faults: Faults, record: Record) -> None:
        self._app = app
        self._routes: dict[tuple[str, str], Callable[[dict[str, Any]], Any]] = {
            ("GET", "/iam"): lambda asked: record.report(),
            ("POST", "/faults"): lambda asked: faults.begin(asked["service"], asked["status"], asked["seconds"]),
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer."""
        path = environ.get("PATH_INFO", "")
        if not path.startswith(f"{PREFIX}/"):
            return self._app(environ, start_response)
        route = self._routes.get((environ["REQUEST_METHOD"], path.removeprefix(PREFIX)))
        status = "404 Not Found"
        answer: Any = {"allowed": [f"{method} {PREFIX}{name}" for method, name in self._routes]}
        if route is not None:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            try:
                asked = json.loads(environ["wsgi.input"].read(length) or b"{}")
                status, answer = "200 OK", route(asked)
            except (ValueError, KeyError, TypeError) as exc:
                status, answer = "400 Bad Request", {"error": f"{type(exc).__name__}: {exc}"}
        body = json.dumps(answer).encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

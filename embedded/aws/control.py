"""What the embedded AWS answers beside AWS's services, below ``/_embedded``: who called what, and faults on demand.

GET  /_embedded/iam     the record of calls by role
POST /_embedded/faults  {"service": "s3", "status": 500, "seconds": 5}: requests of that service fail for so long
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from embedded.aws.iam.record import Record

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PREFIX = "/_embedded"
_SERVICE = re.compile(r"Credential=[^/]+/[^/]+/[^/]+/([^/]+)/aws4_request")


class Faults:
    """Services that fail for a while: only for the tasks' requests, which carry a role's temporary credentials."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def begin(self, service: str, status: int, seconds: float) -> None:
        """Let a service, by the name that requests are signed for, answer `status` for so long."""
        with self._lock:
            self._until[service] = (time.monotonic() + seconds, status)

    def around(self, app: WSGIApplication) -> WSGIApplication:
        """The application, behind the faults."""

        def failing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            status = self._status(environ)
            if status is None:
                return app(environ, start_response)
            body = b"<Error><Code>InternalError</Code><Message>A fault that was asked for</Message></Error>"
            start_response(f"{status} Internal Server Error", [("Content-Length", str(len(body)))])
            return [body]

        return failing

    def _status(self, environ: WSGIEnvironment) -> int | None:
        signed = _SERVICE.search(environ.get("HTTP_AUTHORIZATION", ""))
        if signed is None or "HTTP_X_AMZ_SECURITY_TOKEN" not in environ:
            return None
        with self._lock:
            until, status = self._until.get(signed[1], (0.0, 0))
        return status if time.monotonic() < until else None


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

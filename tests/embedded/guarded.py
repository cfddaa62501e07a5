"""A server of moto behind the guard, for tests: `python -m tests.embedded.guarded` prints its URL, then serves."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from embedded.aws.iam.guard import Guard, install
from embedded.aws.iam.record import Record


def main() -> None:
    """Serve until killed; `/_embedded/iam` tells what the record has."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    install()
    record = Record()
    moto = DomainDispatcherApplication(create_backend_app)

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith("/_embedded/"):
            answer: Iterable[bytes] = moto(environ, start_response)
            return answer
        body = json.dumps(record.report()).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    server = make_server("127.0.0.1", 0, Guard(app, record), threaded=True, request_handler=MotoRequestHandler)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

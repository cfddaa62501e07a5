"""``python -m tests.embedded.serving``: moto with the executors that a test names, images it makes up, and faults.

Prints one JSON line ``{"url": ...}`` when it is ready, and ends on SIGTERM with all that it started.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import signal
import threading
from pathlib import Path

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from embedded.aws.control import Control, Faults
from embedded.aws.host import Host
from embedded.aws.iam.record import Record
from embedded.aws.ports import HOST


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="append", default=[], help="module with an install(host)")
    parser.add_argument("--images", type=Path, required=True, help="folder with an images.json: URI -> Dockerfile")
    parser.add_argument("--context", type=Path, required=True, help="folder that the Dockerfiles copy from")
    parser.add_argument("--folder", type=Path, required=True, help="where tasks keep files")
    parser.add_argument("--cores", type=int, required=True)
    given = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would log every request
    faults, moto = Faults(), DomainDispatcherApplication(create_backend_app)
    app = Control(faults.around(moto), faults, Record())
    server = make_server(HOST, 0, app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environ = {"PATH": os.environ["PATH"], "HOME": str(given.folder)}
    host = Host(endpoint=f"http://{HOST}:{server.port}", folder=given.folder, environ=environ, cores=given.cores)
    _publish(host, given.images, given.context)
    for module in given.install:
        importlib.import_module(module).install(host)
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    print(json.dumps({"url": host.endpoint}), flush=True)
    done.wait()
    host.close()  # the server ends with the process


def _publish(host: Host, folder: Path, context: Path) -> None:
    images: dict[str, str] = json.loads((folder / "images.json").read_text())
    for number, (uri, text) in enumerate(images.items()):
        dockerfile = folder / f"Dockerfile.{number}"
        dockerfile.write_text(text)
        host.images.publish(uri, dockerfile, context)


if __name__ == "__main__":
    main()

"""The embedded AWS: moto's server on loopback, with real processes behind Batch, SageMaker, EMR and Lambda.

``python -m embedded.aws.server --port 0`` prints one JSON line ``{"url": ...}`` when it is ready and ends on SIGTERM,
and with it every task that runs. ``--assembly FOLDER`` deploys a cloud assembly first, and the line says what came of
it. ``--state FOLDER`` keeps what lies in the deployment's buckets, its logs and its executions from one start to the
next; without it everything is gone with the process.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moto.core.config import default_user_config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from app.errors import StockflowError
from embedded.aws import batch, cluster, events, functions, states, training
from embedded.aws.control import Control, Faults
from embedded.aws.deployment.assembly import Assembly
from embedded.aws.deployment.deploy import deploy
from embedded.aws.host import Host
from embedded.aws.iam import guard
from embedded.aws.iam.record import Record
from embedded.aws.ports import HOST, check_port
from embedded.aws.state import StateFolder, claim

_OUR_MESSAGE = "embedded AWS: "


class Server:
    """moto behind the guard, listening; `host` starts tasks once `install` has been called."""

    def __init__(self, port: int, folder: Path, environ: Mapping[str, str]) -> None:
        default_user_config["iam"] = {"load_aws_managed_policies": True}
        self.record = Record()
        self.faults = Faults()
        moto = DomainDispatcherApplication(create_backend_app)
        self.state = StateFolder(guard.Guard(moto, self.record))
        self.control = Control(self.faults.around(self.state), self.faults, self.record)
        self._wsgi: BaseWSGIServer = make_server(
            HOST, port, self.control, threaded=True, request_handler=MotoRequestHandler
        )
        self.url = f"http://{HOST}:{self._wsgi.port}"
        self.host = Host(endpoint=self.url, folder=folder, environ=_of_tasks(environ))
        self._thread = threading.Thread(target=self._wsgi.serve_forever, daemon=True)

    def start(self) -> None:
        """Put the executors behind the services, then listen."""
        guard.install()
        for executor in (functions, events, batch, training, cluster, states):
            executor.install(self.host)
        self._thread.start()

    def deploy(self, assembly: Path, state: Path | None) -> dict[str, Any]:
        """Deploy, then put back what an earlier start left; returns what the ready line says."""
        deployed = deploy(Assembly.load(assembly), self.host)
        if state is not None:
            self.state.open(state, deployed, self.url)
        self.record.reset()
        return deployed.describe()

    def stop(self) -> None:
        """End all tasks, keep what is to be kept, stop listening."""
        self.host.close()
        self.state.close()
        self._wsgi.shutdown()
        self._thread.join()


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m embedded.aws.server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--assembly", type=Path, help="cloud assembly to deploy, as `cdk synth` writes it")
    parser.add_argument("--state", type=Path, help="folder that outlives the server; needs --assembly")
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would log every request
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    try:
        check_port(options.port, "--port")
        if options.state:
            claim(options.state)
        with tempfile.TemporaryDirectory(prefix="embedded-aws-", ignore_cleanup_errors=True) as folder:
            _serve(options, Path(folder), done)
    except StockflowError as exc:
        print(f"{_OUR_MESSAGE}{exc}", file=sys.stderr)
        return exc.exit_code
    return 0


def _serve(options: argparse.Namespace, folder: Path, done: threading.Event) -> None:
    server = Server(options.port, folder, os.environ)
    server.start()
    try:
        ready: dict[str, Any] = {"url": server.url}
        if options.assembly:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # moto warns of each type that a rule of ours takes care of
                ready["deployed"] = server.deploy(options.assembly, options.state)
        print(json.dumps(ready), flush=True)
        done.wait()
    finally:
        server.stop()


def _of_tasks(environ: Mapping[str, str]) -> dict[str, str]:
    """What tasks find of this process's environment: no credentials of its own."""
    return {name: value for name, value in environ.items() if not name.startswith("AWS_")}


if __name__ == "__main__":
    sys.exit(main())

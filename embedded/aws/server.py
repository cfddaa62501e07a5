"""The embedded AWS: moto's server on loopback, with real processes behind Batch, SageMaker, EMR and Lambda.

``python -m embedded.aws.server --port 0`` prints one JSON line ``{"url": ...}`` when it is ready and ends on SIGTERM,
and with it every task that runs. ``--assembly FOLDER`` deploys a cloud assembly first, and the line says what came of
it. ``--state FOLDER`` keeps what lies in the deployment's buckets, its logs and its executions from one start to the
next; without it everything is gone with the process. ``--pass NAME`` lets tasks find a variable of this process's
environment, besides those that say what machine it is.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

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
from embedded.aws.state import StateFolder
from embedded.aws.state_folder import hold
from embedded.aws.states.executions import abort_all

_OUR_MESSAGE = "embedded AWS: "
_PROGRAMS = frozenset({"PATH", "LD_LIBRARY_PATH", "JAVA_HOME", "LANG", "TZ"})
_NETWORK = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "CURL_CA_BUNDLE"})
"""How this machine reaches the world, which a container's network would do by itself; in small letters too."""
_CLEAN_UP_S, _QUIET_S = 8.0, 1.0


class Server:
    """moto behind the guard, listening; `host` starts tasks once `start` has been called. environ: what tasks find."""

    def __init__(self, port: int, folder: Path, environ: Mapping[str, str]) -> None:
        self.record = Record()
        self.faults = Faults()
        moto = DomainDispatcherApplication(create_backend_app)
        self.state = StateFolder(guard.Guard(moto, self.record))
        self.control = Control(self.faults.around(self.state), self.faults, self.record)
        self._wsgi: BaseWSGIServer = make_server(
            HOST, port, self.control, threaded=True, request_handler=MotoRequestHandler
        )
        self.url = f"http://{HOST}:{self._wsgi.port}"
        self.host = Host(endpoint=self.url, folder=folder, environ=environ)
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
        """Abort all executions, end all tasks, keep what is to be kept, stop listening."""
        if abort_all("EmbeddedAws", "the embedded AWS went down"):
            self._let_clean_up()
        self.host.close()
        self.state.close()
        self._wsgi.shutdown()
        self._thread.join()

    def _let_clean_up(self) -> None:
        """Wait until what executions started is ended, and what their ends called, for a few seconds at most."""
        quiet_since = time.monotonic()
        until = quiet_since + _CLEAN_UP_S
        while time.monotonic() < min(until, quiet_since + _QUIET_S):
            if self.host.busy:
                quiet_since = time.monotonic()
            time.sleep(0.05)


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m embedded.aws.server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--assembly", type=Path, help="cloud assembly to deploy, as `cdk synth` writes it")
    parser.add_argument("--state", type=Path, help="folder that outlives the server; needs --assembly")
    parser.add_argument("--folder", type=Path, help="where tasks keep their files; removed at the end")
    parser.add_argument("--pass", dest="passed", metavar="NAME", action="append", default=[], help="see above")
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would log every request
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    try:
        check_port(options.port, "--port")
        folder = options.folder or Path(tempfile.mkdtemp(prefix="embedded-aws-"))
        try:
            with hold(options.state) if options.state else nullcontext():
                _serve(options, folder, done)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except StockflowError as exc:
        print(f"{_OUR_MESSAGE}{exc}", file=sys.stderr)
        return exc.exit_code
    return 0


def _serve(options: argparse.Namespace, folder: Path, done: threading.Event) -> None:
    server = Server(options.port, folder, of_tasks(os.environ, options.passed))
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


def of_tasks(environ: Mapping[str, str], passed: Iterable[str]) -> dict[str, str]:
    """What tasks find of this process's environment: what machine it is, and the variables that are passed by name."""
    names = {*_PROGRAMS, *passed}
    return {
        name: value
        for name, value in environ.items()
        if name in names or name.upper() in _NETWORK or name.startswith("LC_")
    }


if __name__ == "__main__":
    sys.exit(main())

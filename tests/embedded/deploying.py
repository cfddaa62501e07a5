"""``python -m tests.embedded.deploying FOLDER``: an embedded AWS with nothing but a deployment of this assembly.

Prints one JSON line when it is ready: ``{"url": ..., "deployed": ..., "images": {URI: command}}`` or
``{"error": ...}``, and ends on SIGTERM.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from moto.core.config import default_user_config
from moto.server import ThreadedMotoServer

from app.errors import StockflowError
from app.processes import Child
from embedded.aws.account import client
from embedded.aws.deployment.assembly import Assembly
from embedded.aws.deployment.deploy import Deployed, DeployedStack, Resource, deploy
from embedded.aws.host import Host
from embedded.aws.ports import HOST

_ROOT = Path(__file__).parents[2]
_READY_S = 120


class Deploying:
    """A server that deploys an assembly while the test goes on; who asks for what it came to waits for it."""

    def __init__(self, folder: Path) -> None:
        self._lines: Queue[str] = Queue()
        argv = [sys.executable, "-m", "tests.embedded.deploying", str(folder)]
        self._child = Child(argv, os.environ, self._lines.put, cwd=_ROOT)
        self._answer: dict[str, Any] = {}

    @property
    def answer(self) -> Mapping[str, Any]:
        """The line that the server printed."""
        if not self._answer:
            try:
                self._answer = json.loads(self._lines.get(timeout=_READY_S))
            except Empty:
                raise AssertionError(f"no server: {self._child.last_error()}") from None
        return self._answer

    @property
    def deployed(self) -> Deployed:
        """What the deployment came to."""
        said = self.answer["deployed"]
        stacks = {
            name: DeployedStack(stack["outputs"], {key: Resource(**found) for key, found in stack["resources"].items()})
            for name, stack in said["stacks"].items()
        }
        return Deployed(**{**said, "stacks": stacks})

    def client(self, service: str) -> Any:
        """A client of the server."""
        return client(service, self.answer["url"])

    def stop(self) -> None:
        """End the server."""
        self._child.stop()


def write_assembly(
    folder: Path,
    templates: Mapping[str, Mapping[str, Any]],
    *,
    files: Mapping[tuple[str, str], bytes] | None = None,
) -> Path:
    """An assembly of these templates by stack, in this order, and of files by bucket and key."""
    folder.mkdir(parents=True, exist_ok=True)
    artifacts: dict[str, Any] = {"all": {"type": "cdk:asset-manifest", "properties": {"file": "assets.json"}}}
    for name, template in templates.items():
        (folder / f"{name}.json").write_text(json.dumps(template))
        artifacts[name] = {
            "type": "aws:cloudformation:stack",
            "dependencies": list(artifacts),
            "properties": {"templateFile": f"{name}.json"},
        }
    assets = {}
    for number, ((bucket, key), content) in enumerate((files or {}).items()):
        (folder / f"asset.{number}").write_bytes(content)
        assets[str(number)] = {
            "source": {"path": f"asset.{number}", "packaging": "file"},
            "destinations": {"here": {"bucketName": bucket, "objectKey": key}},
        }
    (folder / "assets.json").write_text(json.dumps({"version": "55.0.0", "files": assets}))
    (folder / "manifest.json").write_text(json.dumps({"version": "55.0.0", "artifacts": artifacts}))
    return folder


def main() -> None:
    """Serve and deploy until SIGTERM."""
    folder = Path(sys.argv[1])
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would log every request
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    name, port = server.get_host_and_port()
    host = Host(endpoint=f"http://{name}:{port}", folder=folder, environ={})
    try:
        assembly = Assembly.load(folder)
        deployed = deploy(assembly, host)
    except StockflowError as exc:
        print(json.dumps({"error": str(exc)}), flush=True)
    else:
        images = {image.uri: host.images.find(image.uri).entrypoint for image in assembly.images}
        print(json.dumps({"url": host.endpoint, "deployed": deployed.describe(), "images": images}), flush=True)
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    done.wait()


if __name__ == "__main__":
    main()

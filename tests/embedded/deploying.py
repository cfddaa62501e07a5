"""``python -m tests.embedded.deploying [--afresh] FOLDER...``: an embedded AWS that only deploys these assemblies.

With --afresh each goes into an empty account. Prints one JSON line for each: ``{"url": ..., "deployed": ...,
"images": {URI: entrypoint}}`` or ``{"error": ..., "random": what moto draws next}``, and ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from moto.core.config import default_user_config
from moto.moto_api._internal import mock_random, moto_api_backend
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
    """A server that deploys assemblies while the test goes on; who asks for what they came to waits for them."""

    def __init__(self, *folders: Path, afresh: bool = False) -> None:
        self._lines: Queue[str] = Queue()
        argv = [sys.executable, "-m", "tests.embedded.deploying", *(["--afresh"] if afresh else []), *map(str, folders)]
        self._child = Child(argv, os.environ, self._lines.put, cwd=_ROOT)
        self._count = len(folders)
        self._clients: dict[str, Any] = {}

    @cached_property
    def answers(self) -> list[Mapping[str, Any]]:
        """What the server printed of each assembly."""
        try:
            return [json.loads(self._lines.get(timeout=_READY_S)) for _ in range(self._count)]
        except Empty:
            raise AssertionError(f"no server: {self._child.last_error()}") from None

    def deployed(self, number: int = 0) -> Deployed:
        """What the deployment of one assembly came to."""
        assert self.answers[number].get("error") is None
        said = self.answers[number]["deployed"]
        stacks = {
            name: DeployedStack(stack["outputs"], {key: Resource(**found) for key, found in stack["resources"].items()})
            for name, stack in said["stacks"].items()
        }
        return Deployed(**{**said, "stacks": stacks})

    def client(self, service: str) -> Any:
        """A client of the server."""
        if service not in self._clients:
            self._clients[service] = client(service, self.answers[0]["url"])
        return self._clients[service]

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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--afresh", action="store_true", help="each into an empty account")
    parser.add_argument("folders", nargs="+", type=Path)
    given = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would log every request
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    name, port = server.get_host_and_port()
    host = Host(endpoint=f"http://{name}:{port}", folder=given.folders[0], environ={})
    for folder in given.folders:
        if given.afresh:
            moto_api_backend.reset()
        print(json.dumps(_deploy(folder, host)), flush=True)
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    done.wait()


def _deploy(folder: Path, host: Host) -> dict[str, Any]:
    try:
        assembly = Assembly.load(folder)
        deployed = deploy(assembly, host)
    except StockflowError as exc:
        return {"error": str(exc), "random": mock_random.random()}
    images = {image.uri: host.images.find(image.uri).entrypoint for image in assembly.images}
    return {"url": host.endpoint, "deployed": deployed.describe(), "images": images}


if __name__ == "__main__":
    main()

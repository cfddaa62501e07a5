"""Servers of the embedded AWS, in processes of their own: pytest's own process keeps moto as it is."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from queue import Empty, Queue
from typing import Protocol

import pytest

from app.processes import Child
from tests.embedded.batch_jobs import IMAGES, Jobs

_ROOT = Path(__file__).parents[2]
_START_S = 60


class Serve(Protocol):
    """Starts a server with these modules' executors and answers its URL.

    installs: names of modules with an install(host); images: URI -> text of a Dockerfile; context: the folder that
    they copy from; cores: what the host has.
    """

    def __call__(
        self, *installs: str, images: Mapping[str, str] | None = None, context: Path = _ROOT, cores: int = 2
    ) -> str: ...


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Servers that end with the session."""
    children: list[Child] = []

    def start(*installs: str, images: Mapping[str, str] | None = None, context: Path = _ROOT, cores: int = 2) -> str:
        folder = tmp_path_factory.mktemp("server")
        (folder / "images.json").write_text(json.dumps(images or {}))
        options = {"--images": folder, "--context": context, "--folder": folder / "tasks", "--cores": cores}
        argv = [sys.executable, "-m", "tests.embedded.serving", *(f"--install={name}" for name in installs)]
        lines: Queue[str] = Queue()
        child = Child(
            [*argv, *(f"{flag}={value}" for flag, value in options.items())], os.environ, lines.put, cwd=_ROOT
        )
        children.append(child)
        try:
            return str(json.loads(lines.get(timeout=_START_S))["url"])
        except Empty:
            pytest.fail(f"no server: {child.last_error()}")

    yield start
    for child in children:
        child.stop()


@pytest.fixture(scope="session")
def jobs(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """A Batch with a queue, on two cores."""
    context = tmp_path_factory.mktemp("context")
    (context / "script.py").write_text("import sys\nprint('copied', *sys.argv[1:])\n")
    return Jobs(serve("embedded.aws.batch", images=IMAGES, context=context, cores=2))

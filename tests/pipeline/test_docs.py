"""The commands of the documentation, run as a reader types them, page by page, and what the pages say comes of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from embedded.services import clean_environ
from tests.pages import CHAOS, ENDS, NOT_RUN, PAGES, ROOT, SERVERS, Block, blocks, page_of, shell_lines
from tests.pipeline.stack import FAST

SMALL = {**FAST, "serving": {**FAST["serving"], "micro_batch_limit": 390}}
"""Settings for what a page asks of them nothing."""

FIRST = "tutorial-laptop.md"
"""It leaves a run, which the commands of the other pages read."""
MARKET = "--sim tickers=4 --sim sessions=5"
"""What `make run` takes here where the page says nothing: the market of the other tests."""
SHARED = ("Makefile", "scripts", "package.json", "package-lock.json", "node_modules", ".venv", "examples", "docs")
PATIENCE_S = 500.0
PORTS = ("5555", "5556")
"""Those of the pages' servers: somebody else may have them."""


@dataclass
class Reader:
    """Somebody who types what the pages say, in a checkout of their own: what builds is the same, build/ is new."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    ports: dict[str, str] = field(default_factory=dict)
    servers: list[subprocess.Popen[str]] = field(default_factory=list)

    def begin_page(self, *, active: bool = True) -> None:
        """In a shell that is new. active: with .venv's programs on PATH, as the first page ends."""
        foreign = ("MAKE", "MFLAGS", "STOCKFLOW_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.environ = clean_environ(kept) | {"ARGS": MARKET, "STOCKFLOW_SETTINGS": json.dumps(SMALL)}
        if active:
            self.environ["PATH"] = f"{self.folder / '.venv' / 'bin'}{os.pathsep}{self.environ['PATH']}"
        self.ports = {port: free_port() for port in PORTS}

    def run(self, block: Block) -> subprocess.CompletedProcess[str]:
        """What the block says; later blocks of the page have the variables that it sets."""
        text = block.text
        for port, free in self.ports.items():
            text = text.replace(port, free)
        if block.mark.startswith(SERVERS):
            return self._serve(text)
        if block.language == "python":
            return self._finish([sys.executable, "-c", text])
        told = self.folder / "environ.json"
        tell = f"{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))' > {told}"
        done = self._finish([shutil.which("bash") or "bash", "-ec", f"set -o pipefail\n{text}\n{tell}"])
        if done.returncode == 0:
            self.environ = json.loads(told.read_text())
        return done

    def _finish(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run it to its end; one that takes too long is ended with all that it has started."""
        with self._start(command, stderr=subprocess.PIPE, start_new_session=True) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGTERM)
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def _serve(self, text: str) -> subprocess.CompletedProcess[str]:
        """Start programs that stay, and wait until each says that it is ready."""
        for line in shell_lines(text):
            server = self._start(line.split())
            self.servers.append(server)
            assert server.stdout is not None
            json.loads(server.stdout.readline())
        return subprocess.CompletedProcess(text, 0, "", "")

    def _start(self, command: list[str], **how: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, text=True, **how)

    def leave(self) -> None:
        """End whatever still runs."""
        for server in self.servers:
            with server:
                server.terminate()
        self.begin_page()
        self._finish([".venv/bin/stockflow", "down"])


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("clone")
    for name in SHARED:
        (folder / name).symlink_to(ROOT / name)
    reader = Reader(folder)
    yield reader
    reader.leave()


def read(reader: Reader, path: Path, *, chaos: bool) -> None:
    """Type all of a page that is to be run; what fails is told with its place."""
    reader.begin_page(active=path.name != FIRST)
    told = list(blocks(path))
    for block, after in pairwise([*told, Block("", 0, "", "", "")]):
        skipped = (NOT_RUN,) if chaos else (NOT_RUN, CHAOS, SERVERS)
        if block.language not in {"sh", "python"} or block.mark.startswith(skipped):
            continue
        done = reader.run(block)
        assert done.returncode == block.status, (
            f"{block.place}\n{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )
        if block.mark.startswith(ENDS) and after.language == "text":
            for part in after.text.split("..."):
                assert plain(part) in plain(done.stderr), f"{after.place}: it says\n{done.stderr}"


def plain(text: str) -> str:
    """Without the ends of lines, which a page has at other places."""
    return " ".join(text.split())


def test_the_laptop_tutorial_can_be_followed(reader: Reader) -> None:
    read(reader, ROOT / "docs" / FIRST, chaos=False)
    assert (reader.folder / "build" / "run" / "latest.json").is_file()


@pytest.mark.parametrize("path", [path for path in PAGES if path.name != FIRST], ids=page_of)
def test_the_other_pages_commands_run_after_it(reader: Reader, path: Path) -> None:
    assert (reader.folder / "build" / "run" / "summary.json").is_file()
    read(reader, path, chaos=False)


def test_the_keys_of_what_a_run_leaves_are_those_of_the_pages(reader: Reader) -> None:
    left = reader.folder / "build" / "run"
    told = re.findall(r"^\| `([^`]+\.json)` \| (.+) \|$", (ROOT / "docs" / "phases.md").read_text(), re.MULTILINE)
    rows = {key: set(re.findall(r"`(\w+)`", meaning)) for key, meaning in told if re.search(r"`\w+`", meaning)}
    places = {"datasets/<run>/spec.json": "dataset/spec.json"}
    compared = 0
    for key, names in rows.items():
        name = places.get(key, key.removeprefix("runs/<run>/"))
        for path in left.glob(re.sub(r"<\w+>", "*", name)):
            assert set(json.loads(path.read_text())) == names, key
            compared += 1
    assert compared > 10
    described = (ROOT / "docs" / "results.md").read_text().partition("| key | meaning |")[2]
    first_cells = re.findall(r"^\| (`.+?`) \|", described, re.MULTILINE)
    assert set(json.loads((left / "summary.json").read_text())) == set(re.findall(r"`(\w+)`", "".join(first_cells)))


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_all_of_the_pages_can_be_followed(reader: Reader) -> None:
    read(reader, ROOT / "docs" / FIRST, chaos=True)
    for path in PAGES:
        if path.name != FIRST:
            read(reader, path, chaos=True)

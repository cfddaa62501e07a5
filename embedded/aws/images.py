"""What a container image means on a machine without containers: the Dockerfile it would be built from.

Of the Dockerfile's last stage: ENTRYPOINT and CMD say which program runs, ENV what it finds, and COPY from the build
context where a file of the image lies in the checkout. What installs packages is not carried out: the programs are
those of the environment that this process runs in.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from app.errors import StockflowError

_OF_THE_MACHINE = frozenset({"PATH", "PYTHONPATH", "HOME", "LD_LIBRARY_PATH"})
"""Variables that say where an image's own programs lie."""


class UnknownImage(StockflowError):
    """No asset of the deployment has this image."""

    exit_code = 10

    def __init__(self, uri: str) -> None:
        super().__init__(f"image {uri} is none of the deployment's assets: only those have a Dockerfile to run from")
        self.uri = uri


@dataclass(frozen=True)
class Image:
    """entrypoint and command: words; environ: variables; copied: place in the image -> place in the checkout."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    copied: Mapping[PurePosixPath, Path] = field(default_factory=dict)

    def file(self, place: str) -> Path | None:
        """Where a file of the image lies in the checkout; None for one that was not copied from there."""
        wanted = PurePosixPath(place)
        for target, source in self.copied.items():
            if wanted == target:
                return source
            if source.is_dir() and wanted.is_relative_to(target):
                return source / wanted.relative_to(target)
        return None


class Images:
    """Images by their URI, as the deployment publishes them."""

    def __init__(self) -> None:
        self._by_uri: dict[str, Image] = {}

    def publish(self, uri: str, dockerfile: Path, context: Path) -> None:
        """Make an image known. context: the folder that COPY copies from."""
        self._by_uri[uri] = read_dockerfile(dockerfile.read_text(encoding="utf-8"), context)

    def find(self, uri: str) -> Image:
        """The image; UnknownImage when it was never published."""
        try:
            return self._by_uri[uri]
        except KeyError:
            raise UnknownImage(uri) from None


def read_dockerfile(text: str, context: Path) -> Image:
    """What the last stage of a Dockerfile says about running it."""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environ: dict[str, str] = {}
    copied: dict[PurePosixPath, Path] = {}
    folder = PurePosixPath("/")
    for keyword, rest in _instructions(text):
        match keyword:
            case "FROM":
                entrypoint, command, environ, copied, folder = (), (), {}, {}, PurePosixPath("/")
            case "ENTRYPOINT":
                entrypoint = _words(rest)
            case "CMD":
                command = _words(rest)
            case "WORKDIR":
                folder /= rest
            case "ENV":
                pairs = [word.partition("=") for word in shlex.split(rest)]
                environ |= {name: value for name, _, value in pairs if name not in _OF_THE_MACHINE}
            case "COPY" if not rest.startswith("--"):
                *sources, target = shlex.split(rest)
                for source in sources:
                    inside = folder / target
                    copied[inside / source if target.endswith("/") and len(sources) > 1 else inside] = context / source
            case _:
                pass
    return Image(entrypoint, command, environ, copied)


def _instructions(text: str) -> list[tuple[str, str]]:
    """Keyword and rest of each instruction, continued lines joined, comments gone."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = [line.strip().partition(" ") for line in joined.splitlines() if line.strip()]
    return [(keyword.upper(), rest.strip()) for keyword, _, rest in found]


def _words(rest: str) -> tuple[str, ...]:
    """Words of an exec form; the shell form goes through a shell."""
    if rest.startswith("["):
        return tuple(json.loads(rest))
    return ("/bin/sh", "-c", rest)

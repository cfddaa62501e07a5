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


class BadDockerfile(StockflowError):
    """A Dockerfile has what is not understood here."""

    exit_code = 10


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
                environ |= {name: value for name, value in _variables(rest) if name not in _OF_THE_MACHINE}
            case "COPY":
                copied |= _copied(rest, folder, context)
            case _:
                pass
    return Image(entrypoint, command, environ, copied)


def _variables(rest: str) -> list[tuple[str, str]]:
    """Of ENV, in its form with equals signs or in the older one, `ENV NAME text`; BadDockerfile for what has a $."""
    name, _, text = rest.partition(" ")
    pairs = [(name, text.strip())] if "=" not in name else [_pair(word) for word in shlex.split(rest)]
    unknown = [name for name, value in pairs if "$" in value and name not in _OF_THE_MACHINE]
    if unknown:
        raise BadDockerfile(f"ENV {rest}: write out the value of {', '.join(unknown)}, variables are not replaced here")
    return pairs


def _pair(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value


def _copied(rest: str, folder: PurePosixPath, context: Path) -> dict[PurePosixPath, Path]:
    """Of COPY: where in the image which place of the context lies; nothing for what comes from another stage."""
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        if flag.startswith("--from="):
            return {}
        rest = rest.lstrip()
    *sources, target = json.loads(rest) if rest.startswith("[") else shlex.split(rest)
    into = target.endswith("/") or target in {".", ".."} or len(sources) > 1
    # Of a folder its content is copied, so it lies where the target is.
    return {
        folder / target / PurePosixPath(source).name if into and not (context / source).is_dir() else folder / target: (
            context / source
        )
        for source in sources
    }


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

"""Read a Dockerfile and a .dockerignore: as much of both as this project uses. The rest is refused by name.

There is no parser in the standard library, and the one on PyPI knows neither .dockerignore nor heredocs.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

KNOWN = ("FROM", "ARG", "ENV", "COPY", "RUN", "WORKDIR", "USER", "ENTRYPOINT")
FLAGS = {"COPY": ("from", "chown")}
_CONTINUED = re.compile(r"\\[ \t]*$")
_HEREDOC = re.compile(r"(?:^|\s)\d*<<-?[\"']?(\w+)")
_VARIABLE = re.compile(r"\\\$|\$(\w+)|\$\{(\w+)(?::([-+])([^${}]*))?\}|\$\{[^}]*\}?")


class RecipeError(Exception):
    """A Dockerfile that is wrong, or that uses what is not known here; the message names the line."""


@dataclass(frozen=True)
class Instruction:
    """One instruction: the line it starts on, its name in capitals, its --flags, and the text after them."""

    line: int
    name: str
    flags: Mapping[str, str]
    text: str

    def __str__(self) -> str:
        """On one line, as it stands in the file."""
        flags = "".join(f"--{name}={value} " for name, value in self.flags.items())
        return f"{self.name} {flags}{' '.join(self.text.split())}"

    def words(self, variables: Mapping[str, str]) -> list[str]:
        """The words of the text, without their quotes and with `variables` put in; a JSON list as it is."""
        if self.text.startswith("["):
            return list(json.loads(self.text))
        lexer = shlex.shlex(self.text, posix=True)
        lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
        return [expand(word, variables, self.line) for word in lexer]

    def pairs(self, variables: Mapping[str, str]) -> dict[str, str]:
        """The NAME=VALUE words of an ENV."""
        found = [word.partition("=") for word in self.words(variables)]
        if not all(equals for _, equals, _ in found):
            raise RecipeError(f"line {self.line}: write ENV as NAME=VALUE")
        return {name: value for name, _, value in found}


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, continuation lines joined and comments left out."""
    if re.match(r"(#.*\n)*#\s*escape\s*=", text, flags=re.IGNORECASE):
        raise RecipeError("line 1: the directive `escape` is not known here")
    found = []
    start, pending = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue  # also between the lines of one instruction
        start = start if pending else number
        if _CONTINUED.search(line):
            pending += _CONTINUED.sub("", line)
            continue
        found.append(_instruction(start, pending + line))
        pending = ""
    if pending:
        raise RecipeError(f"line {start}: the last line is continued, but there is no next one")
    return found


def _instruction(line: int, text: str) -> Instruction:
    """The instruction of one joined line."""
    name, _, rest = text.strip().partition(" ")
    name, rest = name.upper(), rest.strip()
    if name not in KNOWN:
        raise RecipeError(f"line {line}: {name} is not known here; known: {', '.join(KNOWN)}")
    flags = {}
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        key, _, value = flag[2:].partition("=")
        if key not in FLAGS.get(name, ()):
            raise RecipeError(f"line {line}: {name} --{key} is not known here")
        flags[key], rest = value, rest.strip()
    heredoc = _HEREDOC.search(rest) if name in ("RUN", "COPY") else None
    if heredoc:
        raise RecipeError(f"line {line}: the heredoc {heredoc.group(1)} is not known here")
    return Instruction(line, name, flags, rest)


def expand(text: str, variables: Mapping[str, str], line: int) -> str:
    """`text` with $NAME, ${NAME}, ${NAME:-other} and ${NAME:+other} put in; an unset variable is empty."""

    def value(found: re.Match[str]) -> str:
        if found.group(0) == "\\$":
            return "$"
        name = found.group(1) or found.group(2)
        if not name:
            raise RecipeError(f"line {line}: {found.group(0)} is not known here")
        held = variables.get(name, "")
        if found.group(3) == "-":
            return held or found.group(4)
        if found.group(3) == "+":
            return found.group(4) if held else ""
        return held

    return _VARIABLE.sub(value, text)


class Ignored:
    """The patterns of a .dockerignore. The last one that fits a path, or a folder above it, decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        self._rules = [(line.startswith("!"), line.lstrip("!").strip("/")) for line in lines]

    def __contains__(self, path: str) -> bool:
        """Whether `path`, relative to the context and with slashes, is left out of the context."""
        parents = ["/".join(path.split("/")[: n + 1]) for n in range(path.count("/") + 1)]
        ignored = False
        for kept, pattern in self._rules:
            if any(_as_regex(pattern).fullmatch(parent) for parent in parents):
                ignored = not kept
        return ignored

    def hides(self, folder: str) -> bool:
        """Whether nothing below `folder` is looked at: it is left out, and no ! names something in it.

        A * in a ! stands for no folder here. BuildKit would find what it means; Docker's older builder does not.
        """
        named = (pattern for kept, pattern in self._rules if kept)
        return folder in self and not any(pattern.startswith(f"{folder}/") for pattern in named)


def _as_regex(pattern: str) -> re.Pattern[str]:
    """A pattern of .dockerignore: * and ? stop at a slash, ** does not."""
    if "[" in pattern or "\\" in pattern:
        raise RecipeError(f".dockerignore: {pattern} is not known here; use *, ** and ? only")
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile(re.sub(r"\*\*/|\*\*|\*|\?|[^*?]+", lambda m: parts.get(m[0]) or re.escape(m[0]), pattern))


def context_files(root: Path, ignored: Ignored) -> Iterator[str]:
    """The files below `root` that a build gets to see, as sorted paths relative to it."""
    for folder, folders, files in os.walk(root):
        above = Path(folder).relative_to(root).as_posix()
        prefix = "" if above == "." else f"{above}/"
        folders[:] = sorted(name for name in folders if not ignored.hides(prefix + name))
        yield from sorted(prefix + name for name in files if prefix + name not in ignored)

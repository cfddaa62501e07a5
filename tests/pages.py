"""The blocks of the documentation, and the commands in them: what tests of README.md and docs/ read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = (ROOT / "README.md", ROOT / "embedded" / "README.md", *sorted((ROOT / "docs").glob("*.md")))
"""Not the decisions, which hold no commands."""

_OPENING = re.compile(r"^( *)```(\w*)$")
_MARK = re.compile(r"^ *<!-- (.+) -->$")
_SEPARATORS = frozenset("();|&")
_BRACES = frozenset("{}")
_VARIABLE = re.compile(r"^\w+=")
NOT_RUN: Final = "not run: "
CHAOS: Final = "make chaos: "
SERVERS: Final = "servers, make chaos: "
ENDS: Final = "ends with "
MARKS: Final = (NOT_RUN, CHAOS, SERVERS, ENDS)


@dataclass(frozen=True)
class Block:
    """A fenced block. mark: the comment on the line before it, empty without one; line: of its opening, from 1."""

    page: str
    line: int
    language: str
    mark: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def status(self) -> int:
        """The exit status with which it is to end."""
        return int(self.mark.removeprefix(ENDS)) if self.mark.startswith(ENDS) else 0


def blocks(path: Path) -> Iterator[Block]:
    """All fenced blocks of a page, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        opening = _OPENING.match(lines[number])
        if opening:
            indent, language = opening.groups()
            end = lines.index(f"{indent}```", number + 1)
            mark = _MARK.match(lines[number - 1]) if number else None
            text = "\n".join(line.removeprefix(indent) for line in lines[number + 1 : end])
            yield Block(page_of(path), number + 1, language, mark[1] if mark else "", text)
            number = end
        number += 1


def page_of(path: Path) -> str:
    """A page as messages name it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def every_block(*languages: str) -> list[Block]:
    """The blocks of all pages in these languages."""
    return [block for path in PAGES for block in blocks(path) if block.language in languages]


def shell_lines(text: str) -> Iterator[str]:
    """The lines of a script, those that go on joined: after a backslash, a pipe, or within quotes."""
    held = ""
    for line in text.splitlines():
        held += line
        if held.endswith("\\"):
            held = f"{held[:-1]} "
            continue
        try:
            words = shlex.split(held, comments=True)
        except ValueError:  # a quote is open
            held += "\n"
            continue
        if words and words[-1] == "|":
            continue
        if words:
            yield held
        held = ""
    assert not held, f"{text}\nends in the middle of a command"


def commands(line: str) -> Iterator[list[str]]:
    """The words of each simple command of a line, of those in $( ) too, without variables that are set before it."""
    for text in (line, *re.findall(r"\$\(([^()]*)\)", line)):
        lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        beside = False  # the word after < or > is a file
        for word in (*lexer, ";"):
            if beside:
                beside = False
            elif set(word) <= {"<", ">"}:
                beside = True
            elif set(word) <= _SEPARATORS or word in _BRACES:
                if words := list(dropwhile(_VARIABLE.match, words)):
                    yield words
                words = []
            else:
                words.append(word)


def program(words: list[str]) -> str:
    """The program of a command, as one types it where .venv/bin is on PATH."""
    return words[0].removeprefix(".venv/bin/")

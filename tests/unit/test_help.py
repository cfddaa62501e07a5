"""The help of every command: its examples parse, and it is there at once; exit codes are documented."""

from __future__ import annotations

import os
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import embedded.run  # with it all errors of the embedded AWS are defined
from app import errors
from app.cli import cli
from app.errors import StockflowError
from tests.unit.test_errors import every_error

HEAVY = {
    *("aiohttp", "boto3", "botocore", "dash", "exchange_calendars", "horovod", "keras", "moto", "numpy", "onnxruntime"),
    *("pandas", "polars", "pyarrow", "pydantic", "pyspark", "rich", "tensorflow", "yfinance"),
}
ROOT = Path(embedded.run.__file__).parents[1]
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
HELP_S = 0.3


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, groups included."""
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


EVERY = list(commands(cli))


def help_of(words: tuple[str, ...]) -> str:
    found = CliRunner().invoke(cli, [*words, "--help"])
    assert found.exit_code == 0
    return found.output


def invocations(line: str) -> Iterator[list[str]]:
    """The arguments of each `stockflow` in a line of shell."""
    for text in re.findall(r"\$\((.*?)\)", line) or [line]:
        lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        called: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                if called and called[0] == "stockflow":
                    yield called[1:]
                called = []
            else:
                called.append(word)


def parse(arguments: list[str]) -> None:
    """Let click parse a command line without running it."""
    root = click.Context(cli, info_name="stockflow")
    name, command, rest = cli.resolve_command(root, arguments)
    assert command is not None
    with suppress(click.exceptions.Exit):  # --help is done with while it is parsed
        command.make_context(name, rest, parent=root)


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_help_ends_with_examples_that_parse(words: tuple[str, ...]) -> None:
    text, mark, examples = help_of(words).rpartition("\n  Example")
    assert mark, "no example"
    assert "Options:" in text  # the examples are the last that is read
    lines = [line for line in examples.partition(":")[2].splitlines() if line.strip()]
    for line in lines:
        found = list(invocations(line))
        assert found, line
        for arguments in found:
            assert not words or arguments[: len(words)] == list(words)
            parse(arguments)


def test_an_example_that_does_not_parse_would_be_found() -> None:
    assert list(invocations("echo '{}' | stockflow start --input - > log")) == [["start", "--input", "-"]]
    assert list(invocations('eval "$(stockflow up --state ~/s)"')) == [["up", "--state", "~/s"]]
    with pytest.raises(click.UsageError, match="No such option"):
        parse(["run", "--horizon", "2"])
    with pytest.raises(click.UsageError, match="No such command"):
        parse(["predict"])


def test_the_help_of_every_command_imports_nothing_heavy() -> None:
    code = (
        "import sys; from app.cli import cli\n"
        "for words in sys.argv[1:]:\n"
        "    cli([*words.split(), '--help'], standalone_mode=False)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(" ".join, EVERY)], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "app.cli" in loaded
    assert not loaded & HEAVY


def test_help_takes_less_than_a_third_of_a_second() -> None:
    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "app.cli", "--help"], capture_output=True, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Of the processor: how long others keep it is not the command's. The first may write what is compiled.
    assert min(once() for _ in range(4)) < HELP_S


def test_every_exit_code_is_documented() -> None:
    table = TROUBLESHOOTING.read_text().partition("## Exit codes")[2]
    rows = re.findall(r"^\| (\d+) \| (.*?) ?\| (.+) \|$", table, re.MULTILINE)
    documented = {int(code): set(re.findall(r"`(\w+)`", names)) for code, names, _ in rows}
    named = {kind for kind in every_error() if kind.__module__ == errors.__name__}
    own = {kind for kind in named if kind is StockflowError or "exit_code" in vars(kind)}
    expected: dict[int, set[str]] = {code: set() for code in documented}
    for kind in own:
        expected.setdefault(kind.exit_code, set()).add(kind.__name__)
    assert documented == expected
    assert {kind.exit_code for kind in all_errors()} <= documented.keys()
    assert {0, 130, 128 + 15} <= documented.keys()
    assert list(documented) == sorted(documented)


def all_errors(kind: type[StockflowError] = StockflowError) -> Iterator[type[StockflowError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from all_errors(child)


def test_the_docs_are_where_the_help_says() -> None:
    assert "Exit codes: docs/troubleshooting.md." in help_of(())
    assert os.path.isfile(TROUBLESHOOTING)

"""The EMR step: `stockflow serve --no-feed` under spark-submit, with the packages of environment.tar.gz.

usage: spark-submit [...] stream.py [--env NAME=VALUE]... [--env-base64 NAME=TEXT]... [option of serve]...

The environment comes as arguments: YARN hands them to the driver unharmed, where a variable's value would lose its
double quotes. Braces do not survive either way ("}}" is YARN's own mark), so JSON travels in base64. The exit
status is that of `stockflow serve`.
"""

from __future__ import annotations

import argparse
import base64
import os
import sys
from collections.abc import Sequence

from app.cli import main


def read_arguments(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The variables that the arguments set, and what is left for `stockflow serve`."""
    parser = argparse.ArgumentParser(prog="stream.py", add_help=False, allow_abbrev=False)
    parser.add_argument("--env", action="append", default=[], type=_pair)
    parser.add_argument("--env-base64", action="append", default=[], type=_encoded_pair)
    known, rest = parser.parse_known_args(words)
    return dict(known.env + known.env_base64), rest


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value


def _encoded_pair(text: str) -> tuple[str, str]:
    name, value = _pair(text)
    try:
        return name, base64.b64decode(value, validate=True).decode()
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"the value of {name} is not text in base64: {exc}") from exc


if __name__ == "__main__":
    variables, options = read_arguments(sys.argv[1:])
    os.environ.update(variables)
    sys.argv = ["stockflow", "serve", "--no-feed", *options]
    main()

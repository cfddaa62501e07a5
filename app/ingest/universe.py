"""The list of tickers of a run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from app.errors import UniverseError

_DOW_30 = """
AAPL AMGN AMZN AXP BA CAT CRM CSCO CVX DIS GS HD HON IBM JNJ JPM KO MCD MMM MRK MSFT NKE NVDA PG SHW TRV UNH V VZ WMT
"""
DOW_30 = tuple(_DOW_30.split())
"""The Dow Jones Industrial Average as of 2024-11-08: the built-in list `dow30`."""

_BUILT_IN = {"dow30": DOW_30}
_SYMBOL = re.compile(r"^[A-Z0-9^][A-Z0-9.=^-]{0,14}$")


def read_universe(text: str) -> tuple[str, ...]:
    """Tickers from a built-in name, a file (one a line or by commas, `#` comments) or a comma list.

    Returns them unique, sorted and in Yahoo's spelling (BRK.B becomes BRK-B).
    Raises UniverseError for an empty list, a missing or unreadable file or a word that is no symbol.
    """
    if "/" in text or text.endswith((".txt", ".csv")):
        text = "\n".join(line.partition("#")[0] for line in _read_text(text).splitlines())
    return parse_universe(text)


def parse_universe(asked: str | Iterable[str]) -> tuple[str, ...]:
    """Tickers from a built-in name, a comma list or single ones; returns and raises as `read_universe`."""
    if isinstance(asked, str):
        asked = _BUILT_IN[asked] if asked in _BUILT_IN else re.split(r"[\s,]+", asked.strip())
    symbols = {yahoo_symbol(word) for word in asked if word}
    if not symbols:
        raise UniverseError("the universe is empty: name at least one ticker, a file of tickers or dow30")
    return tuple(sorted(symbols))


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise UniverseError(f"universe file {path} does not exist: give a file, a comma list or dow30") from exc
    except UnicodeDecodeError as exc:
        raise UniverseError(f"universe file {path} is not UTF-8 text: one ticker a line is needed") from exc
    except OSError as exc:
        raise UniverseError(f"universe file {path} cannot be read: {exc.strerror}") from exc


def yahoo_symbol(word: str) -> str:
    """A ticker in Yahoo's spelling; UniverseError when it cannot be one."""
    symbol = re.sub(r"\.(?=[A-Z]$)", "-", word.strip().upper())
    if not _SYMBOL.match(symbol):
        raise UniverseError(f"{word!r} is no ticker: use letters, digits, '-', '.', '^' and '='")
    return symbol

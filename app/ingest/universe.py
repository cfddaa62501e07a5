"""The list of tickers of a run: written out, in a file, or by the name of a list, one of which is fetched.

A Lambda reads it too: nothing but the standard library is needed.
"""

from __future__ import annotations

import csv
import http.client
import io
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app import contract
from app.errors import SettingsError, UniverseError

_DOW_30 = """
AAPL AMGN AMZN AXP BA CAT CRM CSCO CVX DIS GS HD HON IBM JNJ JPM KO MCD MMM MRK MSFT NKE NVDA PG SHW TRV UNH V VZ WMT
"""
DOW_30 = tuple(_DOW_30.split())
"""The Dow Jones Industrial Average as of 2024-11-08: the built-in list `dow30`."""

_SP_100 = """
AAPL ABBV ABT ACN ADBE AMAT AMD AMGN AMT AMZN ANET AVGO AXP BA BAC BKNG BLK BMY BNY BRK-B C CAT CMCSA COF COP COST CRM
CSCO CVS CVX DE DELL DHR DIS DUK EMR FDX GD GE GEV GILD GM GOOG GOOGL GS HD IBM INTC INTU ISRG JNJ JPM KO LIN LLY LMT
LOW LRCX MA MCD MDLZ MDT META MMM MO MRK MS MSFT MU NEE NFLX NOW NVDA ORCL PANW PEP PFE PG PLTR PM QCOM RTX SBUX SCHW
SNDK SO T TMO TMUS TSLA TXN UBER UNH UNP UPS USB V VZ WFC WMT XOM
"""
SP_100 = tuple(_SP_100.split())
"""The S&P 100 as of 2026-09-21, both classes of Alphabet's shares among its 101: the built-in list `sp100`."""

SP500_URL = "https://raw.githubusercontent.com/datasets/s-and-p-500-companies/main/data/constituents.csv"
"""The list `sp500`: a public table that follows the index, under ODC-PDDL-1.0."""
SP500_SIZE = 503
"""About how many tickers `sp500` has, for who must not fetch it."""

LISTS = "dow30, sp100 or sp500"
_SP500 = "sp500"
_BUILT_IN = {"dow30": DOW_30, "sp100": SP_100}
_SYMBOL = re.compile(r"[A-Z0-9^][A-Z0-9.=^-]{0,14}")
_SYMBOL_COLUMNS = ("symbol", "ticker")

_ALLOWED_SIZES = range(400, 601)
_LIMIT_BYTES = 1_000_000
_TRIES = 3
_PATIENCE_S = 20.0
"""No try begins later: a Lambda has a minute for all that it does."""
_MAY_PASS = frozenset({408, 425, 429})
"""HTTP statuses besides 5xx after which another try makes sense."""
_THIS_MACHINE = ("127.0.0.1", "localhost")


def read_universe(text: str, sp500_url: str | None = None) -> tuple[str, ...]:
    """Tickers from a file, or from text as `parse_universe` takes it.

    A file (its name has a / or ends with .txt or .csv) has tickers or names of lists, one a line or by commas, with
    `#` comments; or it is CSV whose header names a column Symbol or Ticker. sp500_url: as of `fetch_sp500`.
    Returns and raises as these two; UniverseError also for a missing or unreadable file.
    """
    is_file = "/" in text or text.endswith((".txt", ".csv"))
    return parse_universe(_words_of_file(text) if is_file else text, partial(fetch_sp500, sp500_url))


def parse_universe(asked: str | Iterable[str], sp500: Callable[[], Iterable[str]]) -> tuple[str, ...]:
    """Tickers from single words, or from text that has them by commas, blanks or lines.

    A word may name a list: dow30, sp100, sp500. sp500: gives the tickers of that one; called only when it is named.
    Returns them unique, sorted and in Yahoo's spelling (BRK.B becomes BRK-B).
    Raises UniverseError when nothing is asked for and for a word that is neither a symbol nor a list.
    """
    words = re.split(r"[\s,]+", asked) if isinstance(asked, str) else asked
    named = {word.strip().lower(): word for word in words if word.strip()}
    if not named:
        raise UniverseError(f"the universe is empty: name at least one ticker, a file of tickers, {LISTS}")
    tickers: set[str] = set()
    for name, word in named.items():
        if name == _SP500:
            tickers.update(sp500())
        else:
            tickers.update(_BUILT_IN.get(name) or [yahoo_symbol(word)])
    return tuple(sorted(tickers))


def yahoo_symbol(word: str) -> str:
    """A ticker in Yahoo's spelling; UniverseError when it cannot be one."""
    symbol = re.sub(r"\.(?=[A-Z]$)", "-", word.strip().upper())
    if not word.isascii() or not _SYMBOL.fullmatch(symbol):
        raise UniverseError(f"{word[:40]!r} is no ticker: use letters, digits, '-', '.', '^' and '='")
    return symbol


def fetch_sp500(url: str | None = None, *, timeout_s: float = 5.0, backoff_s: float = 0.5) -> tuple[str, ...]:
    """The tickers of the S&P 500 from a CSV table on the Web, in Yahoo's spelling and sorted.

    url: https, or http on this machine; None or an empty text means SP500_URL. timeout_s: limit of connecting, of a
    silence, and of the body. backoff_s: before the second try, twice that before the third.
    Raises SettingsError for another kind of URL, and UniverseError when there is no answer after all tries or when the
    answer is not a table with a column Symbol of 400 to 600 tickers.
    """
    url = url or SP500_URL
    if not _may_be_fetched(url):
        raise SettingsError(f"{contract.ENV_SP500_URL}={url!r} is not https://HOST/PATH (or http on this machine)")
    give_up = time.monotonic() + _PATIENCE_S
    tries = 1
    while True:
        try:
            return _constituents(_get(url, timeout_s))
        except _FetchFailed as exc:
            if not exc.may_pass or tries == _TRIES or time.monotonic() > give_up:
                shown = urlsplit(url)._replace(query="", fragment="").geturl()
                raise UniverseError(
                    f"sp500 cannot be fetched from {shown}: {exc}: name sp100 or a file of tickers instead"
                ) from exc
        time.sleep(backoff_s * 2 ** (tries - 1))
        tries += 1


class _FetchFailed(Exception):
    """Why a try came to nothing, in words. may_pass: whether another one may succeed."""

    def __init__(self, why: str, *, may_pass: bool = False) -> None:
        super().__init__(" ".join(why.split()))
        self.may_pass = may_pass


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect to what may not be fetched, and none from https back to http."""

    def redirect_request(self, req: urllib.request.Request, *answer: Any) -> urllib.request.Request | None:
        new_url = answer[-1]
        if not _may_be_fetched(new_url) or (req.type == "https" and urlsplit(new_url).scheme != "https"):
            return None
        return super().redirect_request(req, *answer)


def _may_be_fetched(url: str) -> bool:
    if not re.fullmatch(r"[!-~]+", url):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _THIS_MACHINE)
    )


def _get(url: str, timeout_s: float) -> bytes:
    """The whole body, with one request and its redirects."""
    request = urllib.request.Request(url, headers={"User-Agent": "stockflow"})  # noqa: S310 - checked by fetch_sp500
    try:
        with _opener(url).open(request, timeout=timeout_s) as response:
            return _body(response, time.monotonic() + timeout_s)
    except urllib.error.HTTPError as exc:
        with exc:
            may_pass = exc.code in _MAY_PASS or exc.code >= 500
            what = "a redirect that is not followed" if 300 <= exc.code < 400 else str(exc.code)
            raise _FetchFailed(f"the answer is {what}", may_pass=may_pass) from exc
    except TimeoutError as exc:
        raise _FetchFailed(f"no whole answer within {timeout_s:g} s", may_pass=True) from exc
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise _FetchFailed(str(getattr(exc, "reason", exc)) or type(exc).__name__, may_pass=True) from exc


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Opens http and https alone, through the machine's proxies; a URL on this machine without them."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if urlsplit(url).hostname in _THIS_MACHINE else None),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _HttpsRedirects(),
    ):
        opener.add_handler(handler)
    return opener


def _body(response: http.client.HTTPResponse, deadline: float) -> bytes:
    announced = response.length
    body = b""
    while chunk := response.read1(65_536):
        body += chunk
        if len(body) > _LIMIT_BYTES:
            raise _FetchFailed(f"the answer is larger than {_LIMIT_BYTES:,} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    if announced is not None and len(body) < announced:
        raise _FetchFailed(f"the answer ends after {len(body)} of {announced} bytes", may_pass=True)
    return body


def _constituents(body: bytes) -> tuple[str, ...]:
    """The tickers of a table, checked."""
    try:
        cells = _symbol_cells(body.decode("utf-8-sig"))
        symbols = {yahoo_symbol(cell) for cell in cells or ()}
    except (ValueError, UniverseError) as exc:
        raise _FetchFailed(f"the answer is no table of tickers: {exc}") from exc
    if cells is None:
        raise _FetchFailed("the answer is no table with a column Symbol")
    if len(symbols) not in _ALLOWED_SIZES:
        allowed = f"{_ALLOWED_SIZES[0]} to {_ALLOWED_SIZES[-1]}"
        raise _FetchFailed(f"the answer has {len(symbols)} tickers where {allowed} are expected")
    return tuple(sorted(symbols))


def _words_of_file(path: str) -> str | list[str]:
    text = _read_text(path)
    try:
        cells = _symbol_cells(text)
    except ValueError as exc:
        raise UniverseError(f"universe file {path} is no table of tickers: {exc}") from exc
    if cells is not None:
        return [cell.partition("#")[0] for cell in cells]
    return "\n".join(line.partition("#")[0] for line in text.splitlines())


def _symbol_cells(text: str) -> list[str] | None:
    """The column Symbol or Ticker of CSV; None when the first row names neither.

    Lines that begin with # are left out. Raises ValueError for rows that do not fit the header.
    """
    lines = ["" if line.lstrip().startswith("#") else line for line in io.StringIO(text, newline=None)]
    try:
        header = next((row for row in csv.reader(lines) if row), [])
        names = [name.strip().lower() for name in header]
        column = next((names.index(name) for name in _SYMBOL_COLUMNS if name in names), None)
        if column is None:
            return None
        reader = csv.reader(lines, strict=True)
        cells = []
        for row in filter(None, reader):
            if len(row) != len(header):
                raise ValueError(f"line {reader.line_num} has {len(row)} columns, its header {len(header)}")
            cells.append(row[column])
    except csv.Error as exc:
        raise ValueError(str(exc)) from exc
    return cells[1:]


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as exc:
        raise UniverseError(f"universe file {path} does not exist: give a file, a comma list, {LISTS}") from exc
    except UnicodeDecodeError as exc:
        raise UniverseError(f"universe file {path} is not UTF-8 text: one ticker a line is needed") from exc
    except OSError as exc:
        raise UniverseError(f"universe file {path} cannot be read: {exc.strerror}") from exc

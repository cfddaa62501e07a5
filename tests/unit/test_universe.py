"""The list of tickers: by commas, by file, by the name of a list, fetched; and what is no ticker."""

from __future__ import annotations

import http.server
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app import contract
from app.errors import SettingsError, UniverseError
from app.ingest.universe import (
    DOW_30,
    SP500_SIZE,
    SP500_URL,
    SP_100,
    fetch_sp500,
    parse_universe,
    read_universe,
    yahoo_symbol,
)
from embedded.services import PASSED


def no_sp500() -> tuple[str, ...]:
    raise AssertionError("sp500 is not asked for")


def test_a_comma_list_is_unique_sorted_and_in_yahoos_spelling() -> None:
    assert read_universe(" msft, AAPL,brk.b MSFT ,^gspc") == ("AAPL", "BRK-B", "MSFT", "^GSPC")


@pytest.mark.parametrize(("name", "symbols", "count"), [("dow30", DOW_30, 30), ("sp100", SP_100, 101)])
def test_a_built_in_list_is_sorted_and_in_yahoos_spelling(name: str, symbols: tuple[str, ...], count: int) -> None:
    assert len(symbols) == count
    assert parse_universe(name, no_sp500) == symbols == tuple(sorted({yahoo_symbol(symbol) for symbol in symbols}))


def test_the_sp100_has_both_classes_of_alphabet_and_the_class_of_berkshire_that_is_traded() -> None:
    assert {"GOOG", "GOOGL", "BRK-B"} < set(SP_100)


def test_lists_may_stand_among_tickers_and_sp500_is_asked_for_only_once_it_is_named() -> None:
    assert parse_universe("dow30 SPY", no_sp500) == tuple(sorted({*DOW_30, "SPY"}))
    assert parse_universe([" SP500 ", "sp500", "SPY", "a"], lambda: ["A", "ZTS"]) == ("A", "SPY", "ZTS")
    assert parse_universe("sp500,sp100", lambda: SP_100[:50]) == SP_100


# --- spelling -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "symbol"), [("brk.b", "BRK-B"), ("BRK-B", "BRK-B"), ("RDSA.AS", "RDSA.AS"), ("EURUSD=X", "EURUSD=X")]
)
def test_only_a_share_class_changes_its_spelling(word: str, symbol: str) -> None:
    assert yahoo_symbol(word) == symbol


@pytest.mark.parametrize("word", ["AA PL", "A/B", "-A", "€", "", "A" * 16, "ß", "\u017fp", "A\nB", "AAPL\x00"])
def test_what_is_no_symbol_is_refused(word: str) -> None:
    with pytest.raises(UniverseError, match="is no ticker: use letters") as caught:
        yahoo_symbol(word)
    assert "\n" not in str(caught.value)


SHARES = st.from_regex(r"[A-Z]{1,5}(-[A-Z])?", fullmatch=True)
SEPARATORS = st.sampled_from([",", " ", "\n", ", ", "\t", ",,", " # and more, as it were\n", "\r\n"])


@given(
    shares=st.lists(SHARES, min_size=1, max_size=30),
    separators=st.lists(SEPARATORS, min_size=30, max_size=30),
    lower=st.booleans(),
    dots=st.booleans(),
)
@example(shares=["BRK-B", "BF-B", "BRK-B"], separators=["\n"] * 30, lower=True, dots=True)
def test_a_universe_is_the_same_however_it_is_written(
    tmp_path_factory: pytest.TempPathFactory, shares: list[str], separators: list[str], lower: bool, dots: bool
) -> None:
    def spelled(symbol: str) -> str:
        symbol = symbol.replace("-", ".") if dots else symbol
        return symbol.lower() if lower else symbol

    expected = tuple(sorted(set(shares)))
    words = [spelled(symbol) for symbol in shares]
    text = "".join(word + separator for word, separator in zip(words, separators, strict=False))
    path = tmp_path_factory.getbasetemp() / "spelled.txt"
    path.write_text(text, newline="")
    table = tmp_path_factory.getbasetemp() / "spelled.csv"
    table.write_text("Name,Ticker\n" + "".join(f'"The {word}, Inc. #1",{word}\n' for word in words))
    assert parse_universe(words, no_sp500) == parse_universe(reversed(words), no_sp500) == expected
    assert read_universe(str(path)) == read_universe(str(table)) == expected
    assert parse_universe(",".join(expected), no_sp500) == expected


@given(st.text())
def test_any_word_is_a_symbol_that_stays_as_it_is_or_refused_in_one_line(word: str) -> None:
    try:
        symbol = yahoo_symbol(word)
    except UniverseError as exc:
        said = str(exc)
        assert len(said.splitlines()) == 1
    else:
        assert re.fullmatch(r"[A-Z0-9^][A-Z0-9.=^-]{0,14}", symbol)
        assert yahoo_symbol(symbol) == symbol


@pytest.mark.parametrize("text", ["", " , ", "\n"])
def test_an_empty_universe_is_refused(text: str) -> None:
    with pytest.raises(UniverseError, match="the universe is empty: name at least one ticker, a file of tickers, dow"):
        read_universe(text)


# --- files --------------------------------------------------------------------------------------


def test_a_file_may_hold_comments_commas_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "tickers.txt"
    path.write_text("# tech\nMSFT, AAPL # and more\n\nBF.B\n")
    assert read_universe(str(path)) == ("AAPL", "BF-B", "MSFT")
    path.write_text("dow30 # and\nSPY\n")
    assert read_universe(str(path)) == tuple(sorted({*DOW_30, "SPY"}))


TABLE = """Symbol,Security,GICS Sector,Headquarters Location,Founded
MMM,3M,Industrials,"Saint Paul, Minnesota",1902
BRK.B,Berkshire Hathaway,Financials,"Omaha, Nebraska",1839
TKO,"The ""No. #1"" Fights",Communication Services,"New York,
New York",2023
"""


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        "\ufeff" + TABLE.replace("\n", "\r\n"),
        "# as downloaded\n\n" + TABLE.replace("BRK.B", "# GONE,,,,\nBRK.B"),
        'rank, ticker \n1,mmm\n2,"brk-b"\n\n3,TKO # new\n',
        "SYMBOL\nMMM\nBRK.B\nTKO",
        "Ticker,Symbol\nno,MMM\nno,BRK.B\nno,TKO\n",
    ],
)
def test_a_table_with_a_column_symbol_or_ticker_is_a_universe(tmp_path: Path, text: str) -> None:
    path = tmp_path / "constituents.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_universe(str(path)) == ("BRK-B", "MMM", "TKO")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Symbol,Name\nMMM,3M\nA\n", "is no table of tickers: line 3 has 1 columns, its header 2"),
        ('Symbol,Name\nMMM,"3M\n', "is no table of tickers: unexpected end of data"),
    ],
)
def test_a_table_whose_rows_do_not_fit_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "constituents.csv"
    path.write_text(text)
    with pytest.raises(UniverseError, match=f"universe file {path} {reason}"):
        read_universe(str(path))


def test_an_absent_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UniverseError, match=r"universe file .*none\.txt does not exist"):
        read_universe(str(tmp_path / "none.txt"))
    for text in ("# nobody\n", "Symbol,Name\n"):
        (tmp_path / "empty.txt").write_text(text)
        with pytest.raises(UniverseError, match="the universe is empty"):
            read_universe(str(tmp_path / "empty.txt"))


def test_a_file_that_is_no_text_or_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    binary = tmp_path / "bars.txt"
    binary.write_bytes(b"PAR1\xff\xfe")
    folder = tmp_path / "folder.txt"
    folder.mkdir()
    for path, reason in (
        (binary, "is not UTF-8 text"),
        (folder, "cannot be read: Is a directory"),
        (tmp_path / ("x" * 300 + ".txt"), "cannot be read: File name too long"),
    ):
        with pytest.raises(UniverseError, match=f"universe file {path} {reason}") as caught:
            read_universe(str(path))
        assert "\n" not in str(caught.value)


# --- fetched ------------------------------------------------------------------------------------


SYMBOLS = tuple(f"{first}{second}{third}" for first in "ABCDEFGH" for second in "ABCDEFGH" for third in "ABCDEFGH")
"""512 of them."""


def table(symbols: tuple[str, ...] = SYMBOLS) -> bytes:
    rows = [f'{symbol},"Company of {symbol}, Inc."\r\n' for symbol in symbols]
    return "".join(["Symbol,Security\r\n", *rows]).encode()


@dataclass(frozen=True)
class Answer:
    """What the server sends. announced: as Content-Length, by default the body's; hang_s: before each 10 kB."""

    body: bytes = field(default_factory=table)
    status: int = 200
    announced: int | None = None
    location: str | None = None
    hang_s: float = 0.0


class Web:
    """A server on this machine that gives the answers of its script, the last one again and again."""

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.asked: list[str] = []
        self.ended = threading.Event()
        web = self

        class _Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.answer(self)

            def do_CONNECT(self) -> None:
                web.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}/constituents.csv"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append(f"{request.command} {request.path}")
        answer = self.script[min(len(self.asked), len(self.script)) - 1]
        request.send_response(answer.status)
        if answer.location:
            request.send_header("Location", answer.location)
        request.send_header("Content-Length", str(len(answer.body) if answer.announced is None else answer.announced))
        request.end_headers()
        for start in range(0, len(answer.body), 10_000):
            if self.ended.wait(answer.hang_s):
                return
            try:
                request.wfile.write(answer.body[start : start + 10_000])
            except OSError:
                return

    def stop(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.stop()


@pytest.fixture
def fetch(web: Web) -> Callable[[], tuple[str, ...]]:
    return partial(fetch_sp500, web.url, timeout_s=0.5, backoff_s=0.01)


def refused(fetch: Callable[[], tuple[str, ...]]) -> str:
    """What a fetch that comes to nothing says, without its beginning and its end."""
    with pytest.raises(UniverseError) as caught:
        fetch()
    message = str(caught.value)
    assert "\n" not in message
    found = re.fullmatch(
        r"sp500 cannot be fetched from (https?://[^ ]+): (.+): name sp100 or a file of tickers instead", message
    )
    assert found is not None, message
    return found[2]


def test_a_good_table_gives_its_symbols_in_yahoos_spelling(
    web: Web, fetch: Callable[[], tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):  # loopback needs none
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    web.script = [Answer(table((*SYMBOLS, "BRK.B")))]
    assert fetch() == tuple(sorted((*SYMBOLS, "BRK-B")))
    assert web.asked == ["GET /constituents.csv"]


def test_read_universe_fetches_once_and_only_when_it_is_asked_to(web: Web) -> None:
    web.script = [Answer()]
    assert read_universe("AAPL,dow30", web.url) == DOW_30
    assert web.asked == []
    assert read_universe("sp500, SPY", web.url) == tuple(sorted((*SYMBOLS, "SPY")))
    assert len(web.asked) == 1


@pytest.mark.parametrize(
    "first",
    [
        Answer(b"", 500),
        Answer(b"", 503),
        Answer(b"", 429),
        Answer(table()[:-3000], announced=len(table())),  # cut off
        Answer(hang_s=2),
    ],
    ids=["500", "503", "429", "cut off", "hang"],
)
def test_what_may_pass_is_tried_again(web: Web, fetch: Callable[[], tuple[str, ...]], first: Answer) -> None:
    web.script = [first, first, Answer()]
    assert fetch() == SYMBOLS
    assert len(web.asked) == 3


def test_there_are_three_tries_and_each_wait_is_twice_the_one_before(web: Web) -> None:
    web.script = [Answer(b"", 500)]
    started = time.monotonic()
    assert refused(partial(fetch_sp500, web.url, timeout_s=2, backoff_s=0.1)) == "the answer is 500"
    assert time.monotonic() - started >= 0.1 + 0.2
    assert len(web.asked) == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(table()[:-3000], announced=len(table())), r"the answer ends after \d+ of \d+ bytes"),
        (Answer(hang_s=2), r"no whole answer within 0\.5 s"),
        (Answer(table() + b"X" * 60_000, hang_s=0.2), r"no whole answer within 0\.5 s"),  # never silent for long
    ],
    ids=["cut off", "hang", "drip"],
)
def test_what_does_not_pass_is_told_after_three_tries(
    web: Web, fetch: Callable[[], tuple[str, ...]], answer: Answer, reason: str
) -> None:
    web.script = [answer]
    assert re.fullmatch(reason, refused(fetch))
    assert len(web.asked) == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(b"Not Found", 404), "the answer is 404"),
        (Answer(b"<!DOCTYPE html>\n<html>\n<p>Log in, please\n</html>"), "the answer is no table with a column Symbol"),
        (Answer(b""), "the answer is no table with a column Symbol"),
        (Answer(table().replace(b"Symbol", b"Name")), "the answer is no table with a column Symbol"),
        (Answer(table() + b"X" * 1_000_000), "the answer is larger than 1,000,000 bytes"),
        (Answer(table(SYMBOLS[:399])), "the answer has 399 tickers where 400 to 600 are expected"),
        (Answer(table(SYMBOLS[:399] * 2)), "the answer has 399 tickers where 400 to 600 are expected"),
        (Answer(table(tuple(f"S{i}" for i in range(601)))), "the answer has 601 tickers where 400 to 600 are expected"),
        (Answer(table((*SYMBOLS, "A/B"))), "the answer is no table of tickers: 'A/B' is no ticker: use letters, dig"),
        (Answer(table((*SYMBOLS, ""))), "the answer is no table of tickers: '' is no ticker"),
        (Answer(table() + b"AAPL,Apple,Inc.\n"), "the answer is no table of tickers: line 514 has 3 columns, its hea"),
        (Answer(table()[:-1] + b'\nAAPL,"App'), "the answer is no table of tickers: unexpected end of data"),
        (Answer(b"\xff\xfeS\x00y\x00"), "the answer is no table of tickers: 'utf-8' codec can't decode"),
    ],
)
def test_what_another_try_does_not_mend_is_told_at_once(
    web: Web, fetch: Callable[[], tuple[str, ...]], answer: Answer, reason: str
) -> None:
    web.script = [answer]
    assert refused(fetch).startswith(reason)
    assert len(web.asked) == 1


def test_a_redirect_is_followed(web: Web, fetch: Callable[[], tuple[str, ...]]) -> None:
    web.script = [Answer(b"", 302, location="/new.csv"), Answer()]
    assert fetch() == SYMBOLS
    assert web.asked == ["GET /constituents.csv", "GET /new.csv"]


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "http://example.com/", "ftp://127.0.0.1/", "data:,", "/constituents.csv"]
)
def test_a_redirect_to_what_may_not_be_fetched_or_in_a_circle_is_told(
    web: Web, fetch: Callable[[], tuple[str, ...]], location: str
) -> None:
    web.script = [Answer(b"Symbol\nAAPL\n", 302, location=location)]
    assert refused(fetch) == "the answer is a redirect that is not followed"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "http://raw.githubusercontent.com/constituents.csv",
        "http://127.0.0.1.example.com/",
        "http://localhost@example.com/",
        "ftp://127.0.0.1/",
        "data:text/csv,Symbol",
        "constituents.csv",
        "https://",
        "https://[::1/",
        "https://example.com/a b",
        "https://example.com/ä",
    ],
)
def test_only_https_and_http_on_this_machine_are_fetched(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        fetch_sp500(url)
    assert str(caught.value).endswith("is not https://HOST/PATH (or http on this machine)")
    assert str(caught.value).startswith(f"{contract.ENV_SP500_URL}={url!r}")


def test_a_server_that_is_not_there_is_told_without_the_query_of_its_url() -> None:
    server = Web()
    server.stop()
    with pytest.raises(UniverseError, match=r"/constituents\.csv: \[Errno \d+\] Connection refused: name sp100"):
        fetch_sp500(f"{server.url}?token=secret", backoff_s=0.01)


def test_the_public_table_is_asked_for_through_the_machines_proxy(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"http://{web.host}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    web.script = [Answer(b"", 403)]
    said = refused(partial(fetch_sp500, "", backoff_s=0.01))
    assert said == "Tunnel connection failed: 403 Forbidden"
    assert set(web.asked) == {"CONNECT raw.githubusercontent.com:443"}
    assert SP500_URL.startswith("https://raw.githubusercontent.com/")


def test_no_try_begins_after_twenty_seconds(
    web: Web, fetch: Callable[[], tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(0, 1000, 21))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
    web.script = [Answer(b"", 500)]
    assert refused(fetch) == "the answer is 500"
    assert len(web.asked) == 1


def test_the_size_that_is_assumed_would_be_accepted() -> None:
    assert 400 <= SP500_SIZE <= 600


def test_tasks_of_the_embedded_aws_find_the_url() -> None:
    assert contract.ENV_SP500_URL in PASSED

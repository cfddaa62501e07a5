"""The list of tickers: built-in, by file, by commas; and what is no ticker."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import UniverseError
from app.ingest.universe import read_universe, yahoo_symbol


def test_a_comma_list_is_unique_sorted_and_in_yahoos_spelling() -> None:
    assert read_universe(" msft, AAPL,brk.b MSFT ,^gspc") == ("AAPL", "BRK-B", "MSFT", "^GSPC")


def test_the_dow_has_thirty_tickers() -> None:
    assert len(set(read_universe("dow30"))) == 30
    assert read_universe("dow30") == tuple(sorted(read_universe("dow30")))


def test_a_file_may_hold_comments_and_commas(tmp_path: Path) -> None:
    path = tmp_path / "tickers.txt"
    path.write_text("# tech\nMSFT, AAPL # and more\n\nBF.B\n")
    assert read_universe(str(path)) == ("AAPL", "BF-B", "MSFT")


@pytest.mark.parametrize(
    ("word", "symbol"), [("brk.b", "BRK-B"), ("BRK-B", "BRK-B"), ("RDSA.AS", "RDSA.AS"), ("EURUSD=X", "EURUSD=X")]
)
def test_only_a_share_class_changes_its_spelling(word: str, symbol: str) -> None:
    assert yahoo_symbol(word) == symbol


@pytest.mark.parametrize("word", ["AA PL", "A/B", "-A", "€", "", "A" * 16])
def test_what_is_no_symbol_is_refused(word: str) -> None:
    with pytest.raises(UniverseError, match="is no ticker: use letters"):
        yahoo_symbol(word)


@pytest.mark.parametrize("text", ["", " , ", "\n"])
def test_an_empty_universe_is_refused(text: str) -> None:
    with pytest.raises(UniverseError, match="the universe is empty"):
        read_universe(text)


def test_an_absent_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UniverseError, match=r"universe file .*none\.txt does not exist"):
        read_universe(str(tmp_path / "none.txt"))
    (tmp_path / "empty.txt").write_text("# nobody\n")
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

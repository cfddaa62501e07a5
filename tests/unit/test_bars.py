"""Stored bars: which copy of a bar is kept, and when one starts."""

from __future__ import annotations

import pyarrow as pa

from app.ingest.bars import bar_starts, empty_bars, latest_bars
from tests.fakes import make_bars, make_sessions, with_column

(FIRST,) = make_sessions(5)


def day_one(*minutes: int) -> pa.Table:
    return make_bars("AAPL", FIRST, minutes)


def test_starts_are_epoch_seconds() -> None:
    assert bar_starts(day_one(0, 3)).tolist() == [FIRST.open_ts, FIRST.open_ts + 180]
    assert bar_starts(empty_bars()).tolist() == []


def test_of_two_copies_of_a_bar_the_last_written_is_kept_and_all_are_in_order() -> None:
    old = day_one(0, 1, 2)
    new = with_column(day_one(1, 3), "close", [7.0, 8.0])
    other = make_bars("AA", FIRST, [4])
    kept = latest_bars([old, other, new])
    assert kept["ticker"].to_pylist() == ["AA"] + ["AAPL"] * 4
    assert [(ts.minute) for ts in kept["ts"].to_pylist()] == [34, 30, 31, 32, 33]
    closes = old["close"].to_pylist()
    assert kept["close"].to_pylist()[1:] == [closes[0], 7.0, closes[2], 8.0]
    assert kept.schema == old.schema


def test_the_last_copy_wins_within_one_table_too() -> None:
    twice = with_column(pa.concat_tables([day_one(0), day_one(0)]), "volume", [1, 2])
    assert latest_bars([twice])["volume"].to_pylist() == [2]

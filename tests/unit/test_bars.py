"""Stored bars: which copy of a bar is kept, when one starts, and the way into a table and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import contract
from app.errors import ObjectMissing, TooFewBars
from app.ingest.bars import (
    bar_starts,
    bars_of,
    empty_bars,
    get_bars,
    latest_bars,
    part_order,
    read_bars,
    read_parts,
    to_table,
)
from app.ingest.ticker_bars import NO_BARS, TickerBars
from app.storage import Bucket, ObjectInfo
from app.tables import arrow_schema, put_table
from tests.fakes import FakeS3, bucket, make_bars, make_sessions, market_bars, with_column

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


def test_a_tickers_rows_may_stand_in_any_order() -> None:
    table = day_one(0, 1, 2, 3)
    turned = pa.concat_tables([table.slice(2), table.slice(0, 2), table.slice(1, 1)])
    assert latest_bars([turned]).equals(table)


# --- tables and arrays ----------------------------------------------------------------------------


def arrays(*minutes: int, price: float = 10.0) -> TickerBars:
    """Bars of these minutes of the first session, each with prices and a volume of its own."""
    at = np.array(minutes, np.int64)
    close = price + at / 3
    return TickerBars(FIRST.open_ts + 60 * at, close - 0.125, close + 0.25, close - 0.25, close, 7 + at)


def test_arrays_become_a_table_in_the_contracts_schema_ordered_by_ticker_and_time() -> None:
    table = to_table({"MSFT": arrays(0, 1), "AAPL": arrays(3), "BRK-B": arrays(0, 2)})
    assert table.schema == arrow_schema(contract.BARS)
    assert table["ticker"].to_pylist() == ["AAPL", "BRK-B", "BRK-B", "MSFT", "MSFT"]
    minutes = [3, 0, 2, 0, 1]
    assert bar_starts(table).tolist() == [FIRST.open_ts + 60 * minute for minute in minutes]
    assert table["ts"].to_pylist()[0] == datetime(2025, 12, 1, 14, 33, tzinfo=UTC)
    assert table["close"].to_pylist() == [10 + minute / 3 for minute in minutes]
    assert table["low"].to_pylist() == [10 + minute / 3 - 0.25 for minute in minutes]
    assert table["volume"].to_pylist() == [7 + minute for minute in minutes]


def test_tickers_without_bars_have_no_rows() -> None:
    assert to_table({}).equals(empty_bars())
    assert to_table({"AAPL": NO_BARS}).equals(empty_bars())
    assert to_table({"AAPL": NO_BARS, "MSFT": arrays(1)})["ticker"].to_pylist() == ["MSFT"]


def test_a_table_becomes_arrays_by_ticker() -> None:
    table = market_bars(["AA", "AAPL", "B"], [FIRST], gaps={"AAPL": 2})
    bars = bars_of(table)
    assert {ticker: len(one) for ticker, one in bars.items()} == {"AA": 5, "AAPL": 2, "B": 5}
    for ticker, one in bars.items():
        rows = table.filter(pc.equal(table["ticker"], ticker))
        assert one.ts.tolist() == bar_starts(rows).tolist()
        for name in ("open", "high", "low", "close", "volume"):
            assert getattr(one, name).tolist() == rows[name].to_pylist()
    assert bars_of(empty_bars()) == {}


def test_a_table_in_several_chunks_is_one_table() -> None:
    whole = market_bars(["AA", "B"], [FIRST])
    chunks = pa.concat_tables([whole.slice(first, 3) for first in range(0, len(whole), 3)])
    assert chunks["ts"].num_chunks > 1
    for ticker, one in bars_of(whole).items():
        assert bars_of(chunks)[ticker].same_as(one)


MARKETS = st.dictionaries(
    st.sampled_from(["A", "AA", "BRK-B", "^GSPC", "Z"]), st.tuples(st.sets(st.integers(0, 400)), st.floats(0.01, 1e6))
)


@settings(derandomize=True)
@given(MARKETS)
def test_arrays_come_back_from_a_table_to_the_bit(market: dict[str, tuple[set[int], float]]) -> None:
    bars = {ticker: arrays(*sorted(minutes), price=price) for ticker, (minutes, price) in market.items()}
    table = to_table(bars)
    back = bars_of(table)
    assert [*back] == sorted(ticker for ticker, one in bars.items() if len(one))
    assert all(one.same_as(bars[ticker]) for ticker, one in back.items())
    assert latest_bars([table]).equals(table)


# --- stored parts ---------------------------------------------------------------------------------

DAY = FIRST.day
EARLY = datetime(2026, 1, 1, tzinfo=UTC)


def info(part: str, modified: datetime = EARLY) -> ObjectInfo:
    return ObjectInfo(contract.bars_key(DAY, part), modified, 1)


def test_parts_are_ordered_by_when_they_were_written_and_a_merged_one_comes_after_its_own() -> None:
    later = EARLY + timedelta(seconds=1)
    parts = [info(contract.compact_part("r")), info("z"), info("a", later), info("b")]
    ordered = [contract.part_of(each.key) for each in sorted(parts, key=part_order)]
    assert ordered == ["z", "b", contract.compact_part("r"), "a"]


def stored(market: Bucket, part: str, table: pa.Table) -> str:
    key = contract.bars_key(DAY, part)
    put_table(market, key, table)
    return key


def test_a_day_is_read_in_the_order_in_which_it_was_written() -> None:
    market = bucket()
    for part, minute in (("b", 1), ("a", 2), (contract.compact_part("r"), 3), ("c", 4)):
        stored(market, part, day_one(minute))
    assert [bar_starts(part)[0] - FIRST.open_ts for part in read_parts(market, FIRST)] == [60, 120, 180, 240]


def test_a_day_without_parts_has_none_and_other_days_are_not_its_own() -> None:
    market = bucket()
    first, second = make_sessions(5, 5)
    put_table(market, contract.bars_key(second.day, "a"), make_bars("AAPL", second))
    assert read_parts(market, first) == []
    assert len(read_parts(market, second)) == 1


class Compacting(FakeS3):
    """An S3 in which, so many times, a day's part is merged into another between the list and the read of it."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._left = times

    def get_object(self, **call: Any) -> dict[str, Any]:
        """As FakeS3, a moment too late."""
        if self._left:
            self._left -= 1
            self.objects = {contract.bars_key(DAY, f"merged-{self._left}"): self.objects[call["Key"]]}
        return super().get_object(**call)


@pytest.mark.parametrize("times", [1, 2])
def test_parts_that_are_merged_while_they_are_read_are_looked_for_again(times: int) -> None:
    market = bucket(Compacting(times))
    stored(market, "run-0000", day_one(0, 3))
    (part,) = read_parts(market, FIRST)
    assert part.equals(day_one(0, 3))


def test_parts_that_vanish_again_and_again_are_missing() -> None:
    market = bucket(Compacting(3))
    stored(market, "run-0000", day_one(0, 3))
    with pytest.raises(ObjectMissing):
        read_parts(market, FIRST)


def test_a_stored_part_is_read_in_the_contracts_schema_whatever_else_it_holds() -> None:
    market = bucket()
    table = day_one(0, 1)
    wider = table.append_column("vwap", pa.array([1.0, 2.0])).select(["vwap", *reversed(table.schema.names)])
    key = stored(market, "a", wider.set_column(1, "volume", pa.array([3, 4], pa.int32())))
    read = get_bars(market, key)
    assert read.schema == arrow_schema(contract.BARS)
    assert read["volume"].to_pylist() == [3, 4]


def test_bars_are_read_over_days_for_the_tickers_that_are_wanted_one_copy_of_each() -> None:
    market = bucket()
    sessions = make_sessions(5, 5, 5)
    for session in sessions[:2]:
        put_table(market, contract.bars_key(session.day, "z"), market_bars(["AA", "B"], [session]))
    newer = with_column(make_bars("B", sessions[0], [2]), "close", [77.0])
    put_table(market, contract.bars_key(sessions[0].day, "a"), newer)
    table = read_bars(market, sessions, ["B", "C"])
    (bars,) = bars_of(table).values()
    assert set(table["ticker"].to_pylist()) == {"B"}
    assert bars.ts.tolist() == [session.open_ts + 60 * minute for session in sessions[:2] for minute in range(5)]
    assert (bars.close == 77.0).tolist() == [i == 2 for i in range(10)]


def test_without_any_bar_the_ingest_is_to_be_run_first() -> None:
    market = bucket()
    stored(market, "a", day_one(0))
    with pytest.raises(TooFewBars, match="no bars under s3://fake/bars/: run `stockflow ingest` first"):
        read_bars(market, [FIRST], ["MSFT"])

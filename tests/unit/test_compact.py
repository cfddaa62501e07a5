"""A day's parts become one: whenever it is killed, readers and answers lose nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import contract
from app.ingest.answers import DayAnswer, put_part, read_answers
from app.ingest.bars import read_bars, to_table
from app.ingest.compact import compact_day, compact_days
from app.ingest.minutes import held_minutes, missing_text
from app.progress import silent
from app.storage import Bucket
from app.tables import put_table
from tests.fakes import CrashingS3, FakeS3, Killed, bucket, make_sessions
from tests.yahoo import walk

SESSIONS = SESSION, OTHER = make_sessions(12, 12)
COMPACT = tuple(key(SESSION.day, contract.compact_part("r")) for key in (contract.bars_key, contract.answers_key))


class Part(NamedTuple):
    """What one shard of one run stored of one ticker's day; `seed` tells versions of its bars apart."""

    name: str
    ticker: str
    minutes: frozenset[int]
    seed: str = ""
    asked_ts: int = 1
    sure: bool = True


def store(market: Bucket, part: Part) -> None:
    bars = walk(part.ticker + part.seed, SESSION, minutes=part.minutes)
    if len(bars):
        put_table(market, contract.bars_key(SESSION.day, part.name), to_table({part.ticker: bars}))
    missing = missing_text(held_minutes(bars.ts, SESSION))
    put_part(
        market,
        contract.answers_key(SESSION.day, part.name),
        {part.ticker: DayAnswer(part.asked_ts, part.sure, missing)},
    )


def minutes(first: int, end: int) -> frozenset[int]:
    return frozenset(range(first, end))


def bars_in(market: Bucket, tickers: Sequence[str] = ("A", "B")) -> pa.Table:
    return read_bars(market, [SESSION], tickers)


def answers_in(market: Bucket) -> dict[str, dict[date, DayAnswer]]:
    return read_answers(market, [SESSION], ["A", "B"])


TWO_RUNS = (Part("r1-s", "A", minutes(0, 8)), Part("r2-s", "A", minutes(4, 12), "new", asked_ts=2, sure=False))


def market_of(*parts: Part, s3: FakeS3 | None = None) -> Bucket:
    market = bucket(s3 or CrashingS3())
    for part in parts:
        store(market, part)
    return market


def test_the_parts_of_a_day_become_one_that_holds_the_bars_and_answers_of_all() -> None:
    market = market_of(*TWO_RUNS, Part("r1-s2", "B", minutes(0, 12)))
    before = bars_in(market), answers_in(market)
    assert compact_day(market, "r", SESSION) == 3
    assert market.keys("") == sorted(COMPACT)
    assert (bars_in(market), answers_in(market)) == before
    assert len(before[0]) == 24


def test_of_two_copies_of_a_bar_the_one_that_was_stored_last_stays() -> None:
    market = market_of(*TWO_RUNS)
    compact_day(market, "r", SESSION)
    closes = bars_in(market)["close"].to_pylist()
    old, new = walk("A", SESSION).close.tolist(), walk("Anew", SESSION).close.tolist()
    assert closes == [*old[:4], *new[4:]]


def test_what_comes_later_is_merged_into_what_was_merged_before() -> None:
    market = market_of(*TWO_RUNS)
    compact_day(market, "r", SESSION)
    store(market, Part("r3-s", "A", minutes(0, 2), "newer", asked_ts=3))
    before = bars_in(market), answers_in(market)
    assert compact_day(market, "r", SESSION) == 1
    assert market.keys("") == sorted(COMPACT)
    assert (bars_in(market), answers_in(market)) == before
    assert bars_in(market)["close"].to_pylist()[0] == walk("Anewer", SESSION).close[0]


@pytest.mark.parametrize("parts", [(), TWO_RUNS[:1], (Part("r-compact", "A", minutes(0, 12)),)])
def test_a_day_of_one_part_or_none_is_left_as_it_is(parts: Sequence[Part]) -> None:
    s3 = CrashingS3()
    market = market_of(*parts, s3=s3)
    before = s3.changes.copy()
    assert compact_day(market, "r", SESSION) == 0
    assert s3.changes == before


def test_answers_of_tickers_that_never_trade_are_merged_without_any_bars() -> None:
    market = market_of(Part("r1-s", "A", frozenset()), Part("r2-s", "B", frozenset()))
    before = answers_in(market)
    assert compact_day(market, "r", SESSION) == 2
    assert market.keys("") == [COMPACT[1]]
    assert answers_in(market) == before
    assert before.keys() == {"A", "B"}


def test_an_answer_whose_bars_are_gone_is_not_made_to_count_by_the_bars_of_others() -> None:
    market = market_of(Part("r1-s", "A", minutes(0, 12)), Part("r2-s", "B", minutes(0, 12)))
    market.delete(contract.bars_key(SESSION.day, "r1-s"))
    compact_day(market, "r", SESSION)
    assert answers_in(market).keys() == {"B"}


def test_all_days_are_merged_each_by_itself_and_their_parts_counted() -> None:
    market, told = market_of(*TWO_RUNS), list[tuple[int, int, str]]()
    put_table(market, contract.bars_key(OTHER.day, "r1-s"), to_table({"A": walk("A", OTHER)}))
    assert compact_days(market, "r", SESSIONS, lambda *progress: told.append(progress)) == 2
    assert told == [(1, 2, "days"), (2, 2, "days")]
    assert market.keys(contract.BARS_PREFIX) == [COMPACT[0], contract.bars_key(OTHER.day, "r1-s")]
    assert compact_days(market, "r", SESSIONS, silent) == 0


def test_a_reader_that_listed_the_parts_before_they_were_merged_looks_again() -> None:
    class MergedMeanwhile(CrashingS3):
        """Merges between the list and the first read."""

        merged = False

        def get_object(self, **call: str) -> dict[str, object]:
            """As FakeS3's."""
            if not self.merged:
                self.merged = True
                compact_day(bucket(self), "r", SESSION)
            return super().get_object(**call)

    s3 = MergedMeanwhile()
    market = market_of(*TWO_RUNS, s3=s3)
    assert len(bars_in(market)) == 12
    assert s3.merged


# --- killed --------------------------------------------------------------------------------------

PARTS = st.lists(
    st.builds(
        Part,
        st.sampled_from(["r-compact", "r1-a", "r1-b", "r2-a", "r3-a"]),
        st.sampled_from(["A", "B"]),
        st.frozensets(st.integers(0, 11), max_size=12),
        st.sampled_from(["", "new", "newer"]),
        st.integers(1, 3),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda part: part.name,
)


@given(parts=PARTS, kills=st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_whenever_it_is_killed_readers_and_answers_lose_nothing_and_it_can_go_on(
    parts: list[Part], kills: list[int]
) -> None:
    s3 = CrashingS3()
    market = market_of(*sorted(parts, key=lambda part: part.name != "r-compact"), s3=s3)  # merged before the others
    any_bars = any(part.minutes for part in parts)
    bars, answers = bars_in(market) if any_bars else None, answers_in(market)
    for changes in [*kills, None]:
        s3.changes_left = changes
        try:
            compact_day(market, "r", SESSION)
        except Killed:
            assert changes is not None
        s3.changes_left = None
        assert answers_in(market) == answers
        if bars is not None:
            assert bars_in(market).equals(bars)
    assert len({contract.part_of(key) for key in market.keys("")}) == 1


def test_a_merge_writes_before_it_deletes_and_answers_go_before_their_bars() -> None:
    s3 = CrashingS3()
    market = market_of(*TWO_RUNS, s3=s3)
    s3.changes.clear()
    compact_day(market, "r", SESSION)
    old = [key(SESSION.day, part.name) for key in (contract.answers_key, contract.bars_key) for part in TWO_RUNS]
    assert s3.changes == [("put", COMPACT[0]), ("put", COMPACT[1]), *(("delete", key) for key in old)]


@given(st.data())
def test_two_runs_that_merge_a_day_at_a_time_lose_no_bar(data: st.DataObject) -> None:
    held = [Part(f"r{i}-a", "A", minutes(3 * i, 3 * i + 3), asked_ts=i) for i in range(4)]
    at = data.draw(st.integers(0, 12), label="calls of one merge before the other")

    class Interrupted(FakeS3):
        calls = 0
        merging = False

        def _other_merge(self) -> None:
            if self.merging:
                self.calls += 1
                if self.calls == at:
                    self.merging = False
                    store(bucket(self), Part("late-a", "B", minutes(0, 12)))
                    compact_day(bucket(self), "other", SESSION)

        def get_object(self, **call: Any) -> dict[str, Any]:
            self._other_merge()
            return super().get_object(**call)

        def put_object(self, **call: Any) -> None:
            self._other_merge()
            super().put_object(**call)

        def delete_object(self, **call: Any) -> None:
            self._other_merge()
            super().delete_object(**call)

    s3 = Interrupted()
    market = market_of(*held, s3=s3)
    s3.merging = True
    compact_days(market, "r", [SESSION], silent)
    s3.merging = False
    expected = {"A": 12, "B": 12} if 0 < at <= s3.calls else {"A": 12}
    found = bars_in(market).to_pandas().groupby("ticker").size()
    assert dict(found) == expected
    compact_day(market, "again", SESSION)
    assert dict(bars_in(market).to_pandas().groupby("ticker").size()) == expected

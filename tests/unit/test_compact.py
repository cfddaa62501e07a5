"""A day's parts become one: whenever it is killed, readers and answers lose nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import contract
from app.ingest.answers import DayAnswer, part_body, read_answers
from app.ingest.bars import bars_of, read_bars, to_table
from app.ingest.compact import compact_day, compact_days
from app.ingest.minutes import held_from_text, held_minutes, missing_text
from app.ingest.parts import put_part
from app.ingest.ticker_bars import NO_BARS, TickerBars
from app.progress import silent
from app.sessions import Session
from app.storage import Bucket
from app.tables import put_table
from tests.fakes import CrashingS3, FakeS3, Killed, bucket, make_sessions
from tests.yahoo import walk

SESSIONS = SESSION, OTHER = make_sessions(12, 12)


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
    answers = {part.ticker: DayAnswer(part.asked_ts, part.sure, missing)}
    market.put(contract.answers_key(SESSION.day, part.name), part_body(answers))


def minutes(first: int, end: int) -> frozenset[int]:
    return frozenset(range(first, end))


def bars_in(market: Bucket, tickers: Sequence[str] = ("A", "B")) -> pa.Table:
    return read_bars(market, [SESSION], tickers)


def answers_in(market: Bucket) -> dict[str, dict[date, DayAnswer]]:
    return read_answers(market, [SESSION], ["A", "B"])


def the_merged(market: Bucket) -> list[str]:
    """The keys of a day's one merged part."""
    (part,) = {contract.part_of(key) for key in market.keys("")}
    assert contract.is_compact(part)
    return [contract.answers_key(SESSION.day, part), contract.bars_key(SESSION.day, part)]


TWO_RUNS = (Part("r1-s", "A", minutes(0, 8)), Part("r2-s", "A", minutes(4, 12), "new", asked_ts=2, sure=False))


def market_of(*parts: Part, s3: FakeS3 | None = None) -> Bucket:
    market = bucket(s3 or CrashingS3())
    for part in parts:
        store(market, part)
    return market


def test_the_parts_of_a_day_become_one_that_holds_the_bars_and_answers_of_all() -> None:
    market = market_of(*TWO_RUNS, Part("r1-s2", "B", minutes(0, 12)))
    before = bars_in(market), answers_in(market)
    assert compact_day(market, SESSION) == 3
    assert market.keys("") == the_merged(market)
    assert (bars_in(market), answers_in(market)) == before
    assert len(before[0]) == 24


def test_of_two_copies_of_a_bar_the_one_that_was_stored_last_stays() -> None:
    market = market_of(*TWO_RUNS)
    compact_day(market, SESSION)
    closes = bars_in(market)["close"].to_pylist()
    old, new = walk("A", SESSION).close.tolist(), walk("Anew", SESSION).close.tolist()
    assert closes == [*old[:4], *new[4:]]


def test_what_comes_later_is_merged_into_what_was_merged_before() -> None:
    market = market_of(*TWO_RUNS)
    compact_day(market, SESSION)
    store(market, Part("r3-s", "A", minutes(0, 2), "newer", asked_ts=3))
    before = bars_in(market), answers_in(market)
    assert compact_day(market, SESSION) == 2
    assert market.keys("") == the_merged(market)
    assert (bars_in(market), answers_in(market)) == before
    assert bars_in(market)["close"].to_pylist()[0] == walk("Anewer", SESSION).close[0]


@pytest.mark.parametrize("parts", [(), TWO_RUNS[:1], (Part("compact-0a1b", "A", minutes(0, 12)),)])
def test_a_day_of_one_part_or_none_is_left_as_it_is(parts: Sequence[Part]) -> None:
    s3 = CrashingS3()
    market = market_of(*parts, s3=s3)
    before = s3.changes.copy()
    assert compact_day(market, SESSION) == 0
    assert s3.changes == before


def test_answers_of_tickers_that_never_trade_are_merged_without_any_bars() -> None:
    market = market_of(Part("r1-s", "A", frozenset()), Part("r2-s", "B", frozenset()))
    before = answers_in(market)
    assert compact_day(market, SESSION) == 2
    assert market.keys("") == the_merged(market)[:1]
    assert answers_in(market) == before
    assert before.keys() == {"A", "B"}


def test_an_answer_whose_bars_are_gone_is_not_made_to_count_by_the_bars_of_others() -> None:
    market = market_of(Part("r1-s", "A", minutes(0, 12)), Part("r2-s", "B", minutes(0, 12)))
    market.delete(contract.bars_key(SESSION.day, "r1-s"))
    compact_day(market, SESSION)
    assert answers_in(market).keys() == {"B"}


def test_all_days_are_merged_each_by_itself_and_their_parts_counted() -> None:
    market, told = market_of(*TWO_RUNS), list[tuple[int, int, str]]()
    put_table(market, contract.bars_key(OTHER.day, "r1-s"), to_table({"A": walk("A", OTHER)}))
    assert compact_days(market, SESSIONS, lambda *progress: told.append(progress)) == 2
    assert told == [(1, 2, "days"), (2, 2, "days")]
    merged, other = market.keys(contract.BARS_PREFIX)
    assert contract.is_compact(contract.part_of(merged))
    assert other == contract.bars_key(OTHER.day, "r1-s")
    assert compact_days(market, SESSIONS, silent) == 0


def test_a_reader_that_listed_the_parts_before_they_were_merged_looks_again() -> None:
    class MergedMeanwhile(CrashingS3):
        """Merges between the list and the first read."""

        merged = False

        def get_object(self, **call: str) -> dict[str, object]:
            """As FakeS3's."""
            if not self.merged:
                self.merged = True
                compact_day(bucket(self), SESSION)
            return super().get_object(**call)

    s3 = MergedMeanwhile()
    market = market_of(*TWO_RUNS, s3=s3)
    assert len(bars_in(market)) == 12
    assert s3.merged


# --- killed --------------------------------------------------------------------------------------

PARTS = st.lists(
    st.builds(
        Part,
        st.sampled_from(["compact-0a1b", "r1-a", "r1-b", "r2-a", "r3-a"]),
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
    market = market_of(*sorted(parts, key=lambda part: part.name != "compact-0a1b"), s3=s3)  # merged before the others
    any_bars = any(part.minutes for part in parts)
    bars, answers = bars_in(market) if any_bars else None, answers_in(market)
    for changes in [*kills, None]:
        s3.changes_left = changes
        try:
            compact_day(market, SESSION)
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
    compact_day(market, SESSION)
    old = [key(SESSION.day, part.name) for key in (contract.answers_key, contract.bars_key) for part in TWO_RUNS]
    answers_key, bars_key = the_merged(market)
    assert s3.changes == [("put", bars_key), ("put", answers_key), *(("delete", key) for key in old)]


# --- what is written is never written over ---------------------------------------------------------


def put(market: Bucket, bars: TickerBars, answer: DayAnswer, session: Session = SESSION) -> str:
    return put_part(market, session, to_table({"A": bars}), {"A": answer}, contract.compact_part)


def test_the_same_content_has_the_same_keys_and_other_content_has_others() -> None:
    market, bars, whole = bucket(), walk("A", SESSION), DayAnswer(1, True, "")
    part = put(market, bars, whole)
    keys = market.keys("")
    assert keys == [contract.answers_key(SESSION.day, part), contract.bars_key(SESSION.day, part)]
    assert put(market, bars, whole) == part
    assert market.keys("") == keys
    others = {put(market, walk("Anew", SESSION), whole), put(market, bars, DayAnswer(2, True, ""))}
    assert len(others | {part}) == 3
    assert len(market.keys("")) == 6


def test_a_part_without_bars_is_its_answers_alone() -> None:
    market = bucket()
    part = put(market, NO_BARS, DayAnswer(1, True, "0-11"))
    assert market.keys("") == [contract.answers_key(SESSION.day, part)]
    assert put(market, NO_BARS, DayAnswer(2, True, "0-11")) != part


def test_a_day_that_is_merged_elsewhere_out_of_the_same_parts_gets_the_same_keys() -> None:
    markets = [market_of(*TWO_RUNS) for _ in range(2)]
    for market in markets:
        compact_day(market, SESSION)
    assert the_merged(markets[0]) == the_merged(markets[1])


# --- at a time -----------------------------------------------------------------------------------


class TakingTurns(FakeS3):
    """Lets one of several threads make its next call, in the order of `turns`; then, and after a thread ends, all."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[int] = []
        self._mine = threading.local()
        self._changed = threading.Condition()
        self._ended: set[int] = set()
        self.at_a_time = False

    def run(self, works: Sequence[Callable[[], object]], turns: Sequence[int]) -> None:
        """Do all works, each in a thread of its own."""
        self.turns, self.at_a_time = list(turns), True
        with ThreadPoolExecutor(len(works)) as pool:
            done = [pool.submit(self._work, who, work) for who, work in enumerate(works)]
        self.at_a_time = False
        for each in done:
            each.result()

    def _work(self, who: int, work: Callable[[], object]) -> None:
        self._mine.who = who
        try:
            work()
        finally:
            with self._changed:
                self._ended.add(who)
                self._changed.notify_all()

    def _next(self) -> int | None:
        while self.turns and self.turns[0] in self._ended:
            self.turns.pop(0)
        return self.turns[0] if self.turns else None

    def _fail_as_told(self) -> None:
        if not self.at_a_time:
            return
        with self._changed:
            assert self._changed.wait_for(lambda: self._next() in (None, self._mine.who), timeout=60)
            if self.turns:
                self.turns.pop(0)
            self._changed.notify_all()


TURNS = st.lists(st.integers(0, 1), max_size=70)
BOTH_MERGED = (
    Part("compact-0a", "A", minutes(0, 8)),
    Part("compact-0b", "A", minutes(4, 12), "new", asked_ts=2),
)
FOUR_SHARDS = tuple(Part(f"r{i}-a", "A", minutes(3 * i, 3 * i + 3), asked_ts=i) for i in range(4))


def assert_every_answer_has_its_bars(market: Bucket) -> None:
    bars = bars_of(bars_in(market))
    for ticker, days in answers_in(market).items():
        stored = held_minutes(bars.get(ticker, NO_BARS).ts, SESSION)
        assert (stored | ~held_from_text(days[SESSION.day].missing, SESSION.minutes)).all()


@pytest.mark.parametrize("held", [FOUR_SHARDS, BOTH_MERGED, (*BOTH_MERGED, *FOUR_SHARDS)])
@given(turns=TURNS)
def test_two_merges_of_a_day_at_a_time_lose_no_bar_and_no_answer(held: Sequence[Part], turns: list[int]) -> None:
    s3 = TakingTurns()
    market = market_of(*held, s3=s3)
    before = bars_in(market), answers_in(market)
    s3.run([lambda: compact_days(bucket(s3), [SESSION], silent)] * 2, turns)
    assert (bars_in(market), answers_in(market)) == before
    compact_day(market, SESSION)
    assert (bars_in(market), answers_in(market)) == before
    assert market.keys("") == the_merged(market)


@given(turns=TURNS, late=st.integers(0, 70), held=st.sampled_from([FOUR_SHARDS, BOTH_MERGED]))
def test_two_merges_of_which_one_knows_a_part_more_lose_no_bar_and_no_answer(
    turns: list[int], late: int, held: Sequence[Part]
) -> None:
    s3 = TakingTurns()
    market = market_of(*held, s3=s3)
    before = answers_in(market)["A"]

    def store_and_merge() -> None:
        store(bucket(s3), Part("late-a", "B", minutes(0, 12)))
        compact_days(bucket(s3), [SESSION], silent)

    s3.run([lambda: compact_days(bucket(s3), [SESSION], silent), store_and_merge], [*[0] * late, *turns])
    for _ in range(2):
        assert {ticker: len(bars) for ticker, bars in bars_of(bars_in(market)).items()} == {"A": 12, "B": 12}
        assert answers_in(market)["A"] == before
        assert_every_answer_has_its_bars(market)
        compact_day(market, SESSION)


@given(turns=TURNS)
def test_a_shard_that_stores_a_part_during_a_merge_leaves_no_answer_without_its_bars(turns: list[int]) -> None:
    s3 = TakingTurns()
    market = market_of(*FOUR_SHARDS, s3=s3)
    late = Part("late-a", "B", minutes(0, 12))
    s3.run([lambda: compact_days(bucket(s3), [SESSION], silent), lambda: store(bucket(s3), late)], turns)
    for _ in range(2):
        assert_every_answer_has_its_bars(market)
        assert {ticker: len(bars) for ticker, bars in bars_of(bars_in(market)).items()} == {"A": 12, "B": 12}
        assert answers_in(market)["A"] == {SESSION.day: DayAnswer(3, True, "")}
        compact_day(market, SESSION)


def test_a_part_whose_bars_come_after_the_list_of_them_is_left_to_the_next_merge() -> None:
    class StoredMeanwhile(FakeS3):
        """Stores a part between the list of the bars and that of the answers."""

        lists = -9

        def paginate(self, **call: Any) -> Iterator[dict[str, Any]]:
            """As FakeS3's."""
            self.lists += 1
            if self.lists == 2:
                store(bucket(self), Part("late-a", "B", minutes(0, 12)))
            return super().paginate(**call)

    s3 = StoredMeanwhile()
    market = market_of(*TWO_RUNS, s3=s3)
    s3.lists = 0
    assert compact_day(market, SESSION) == 2
    assert answers_in(market)["B"] == {SESSION.day: DayAnswer(1, True, "")}
    before = bars_in(market), answers_in(market)
    assert compact_day(market, SESSION) == 2
    assert (bars_in(market), answers_in(market)) == before
    assert market.keys("") == the_merged(market)

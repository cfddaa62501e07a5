"""The replay: one object a minute, at its time, in an order that a listing keeps, and its end last."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pyarrow as pa
import pytest

from app import contract
from app.errors import TooFewBars
from app.ingest.plan import Plan, make_plan
from app.serving.feed import replay_session
from app.serving.tick_writer import TickObjects
from app.storage import Bucket
from app.tables import get_table, put_table
from tests.fakes import CrashingS3, FakeS3, FakeTime, Killed, bucket, make_bars, make_sessions

BEFORE, SESSION = make_sessions(5, 5)
PLAN: Plan = make_plan("r", ["A", "B"], (BEFORE, SESSION), shards=1, request_days=7)
BARS = pa.concat_tables([make_bars("A", SESSION), make_bars("B", SESSION, [0, 3])])


def market_of(s3: FakeS3) -> Bucket:
    """Bars of both sessions, and those of a ticker that is not in the plan."""
    market = bucket(s3)
    put_table(market, contract.bars_key(BEFORE.day, "s"), make_bars("A", BEFORE))
    put_table(market, contract.bars_key(SESSION.day, "s"), BARS)
    put_table(market, contract.bars_key(SESSION.day, "t"), make_bars("OTHER", SESSION))
    s3.puts.clear()
    return market


def replay(market: Bucket, **options: Any) -> dict[str, Any]:
    """The replay of the session into the same bucket."""
    return replay_session(PLAN, SESSION, market, TickObjects(market, "r", SESSION.day), **options)


def test_each_minute_is_one_object_with_all_its_bars() -> None:
    s3 = FakeS3()
    market = market_of(s3)
    replay(market, speed=1e6, sleep=lambda s: None)
    keys = market.keys(contract.ticks_prefix("r"))
    tables = [get_table(market, key) for key in keys]
    assert [table["ticker"].to_pylist() for table in tables] == [["A", "B"], ["A"], ["A"], ["A", "B"], ["A"]]
    assert pa.concat_tables(tables).sort_by([("ticker", "ascending"), ("ts", "ascending")]).equals(BARS)
    assert keys[1] == contract.ticks_key("r", SESSION.day, (SESSION.open_ts + 60) * 1000, 1)


def test_keys_are_written_in_ascending_order_and_the_end_of_the_feed_last() -> None:
    s3 = FakeS3()
    market = market_of(s3)
    end = replay(market, speed=1e6, sleep=lambda s: None)
    assert s3.puts[-1] == contract.feed_end_key("r")
    assert s3.puts[:-1] == sorted(s3.puts[:-1]) == market.keys(contract.ticks_prefix("r"))
    assert market.get_json(contract.feed_end_key("r")) == end
    assert end == {"last_key": s3.puts[-2], "objects": 5, "ticks": 7, "revised": 0, "day": SESSION.day.isoformat()}


@pytest.mark.parametrize(("speed", "each_s"), [(1.0, 60.0), (60.0, 1.0), (600.0, 0.1)])
def test_minutes_are_paced_by_the_speed(speed: float, each_s: float) -> None:
    time = FakeTime(now_s=1000)
    replay(market_of(FakeS3()), speed=speed, sleep=time.sleep, now_s=time)
    assert time.slept == pytest.approx([0, *[each_s] * 4])


def test_a_feed_that_fell_behind_does_not_wait_until_it_has_caught_up() -> None:
    time = FakeTime()

    def slow_report(done: int, total: int, note: str) -> None:
        time.now_s += 2.5 if done == 1 else 0  # the first object takes two and a half minutes of the replay

    replay(market_of(FakeS3()), speed=60, report=slow_report, sleep=time.sleep, now_s=time)
    assert time.slept == pytest.approx([0, 0, 0, 0.5, 1])


@pytest.mark.parametrize("killed_after", [0, 1, 4, 5, 6])
def test_a_replay_that_is_killed_goes_on_after_what_it_wrote(killed_after: int) -> None:
    whole, s3 = FakeS3(), CrashingS3()
    end, market = replay(market_of(whole), speed=1e6, sleep=lambda s: None), market_of(s3)
    s3.changes_left = killed_after
    with suppress(Killed):
        replay(market, speed=1e6, sleep=lambda s: None)
    s3.changes_left = None
    slept: list[float] = []
    assert replay(market, speed=60, sleep=slept.append, now_s=lambda: 0.0) == end
    assert slept[:2] in ([0.0, 1.0], [0.0], [])  # it does not wait for what is written
    assert s3.objects.keys() == whole.objects.keys()


def test_a_session_without_stored_bars_cannot_be_replayed() -> None:
    with pytest.raises(TooFewBars, match="run `stockflow ingest` first"):
        replay(bucket(), speed=1)

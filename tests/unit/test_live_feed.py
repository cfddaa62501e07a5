"""The live feed: the running market as ticks, whatever Yahoo does, by a clock that only sleeping moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import contract
from app.errors import YahooError
from app.ingest.bars import bar_starts, latest_bars, to_table
from app.ingest.chart import Malformed, PassingFailure, RateLimited
from app.ingest.collect import open_poller
from app.ingest.counts import FetchCount
from app.ingest.fetch import Fetcher
from app.ingest.pacing import Pacer
from app.ingest.plan import Plan, Span, make_plan
from app.ingest.poll import Poller
from app.ingest.ticker_bars import NO_BARS, TickerBars
from app.serving.feed import served_session
from app.serving.live_feed import feed_live
from app.serving.tick_writer import TickObjects
from app.sessions import Session, sessions_between, utc
from app.settings import IngestSettings, ServingSettings
from app.tables import get_table
from tests.fakes import CrashingS3, FakeS3, Killed, bucket, make_sessions
from tests.yahoo import FakeYahoo, Reply, minutes_after, walk
from tests.yahoo_server import Answer, Asked, LocalYahoo, chart

BEFORE, SESSION = make_sessions(30, 8)
SETTINGS = ServingSettings(feed="live")
INGEST = IngestSettings(rate_per_s=0, backoff_s=0, attempts=2)
DOWN = PassingFailure("503 Service Unavailable")


class Live:
    """One run's feed, its market bucket, and a Yahoo whose `now` is the feed's clock.

    said: its lines; written: when (epoch s) each object was; at: what happens at an instant, once.
    """

    def __init__(
        self,
        bars: Mapping[str, TickerBars],
        session: Session = SESSION,
        *,
        s3: FakeS3 | None = None,
        early_min: int = 9,
    ) -> None:
        self.session, self.s3 = session, s3 or FakeS3()
        self.market = bucket(self.s3)
        self.plan: Plan = make_plan("r", sorted(bars), (BEFORE,), shards=1, request_days=7)
        self.yahoo = FakeYahoo(bars, minutes_after(session, -early_min))
        self.said: list[str] = []
        self.written: list[float] = []
        self._events: list[tuple[datetime, Callable[[], None]]] = []

    def at(self, minutes: float, event: Callable[[], None]) -> None:
        """Let this happen so long after the open."""
        self._events.append((minutes_after(self.session, minutes), event))

    async def sleep(self, seconds: float) -> None:
        self.written += [self.yahoo.now.timestamp()] * (len(self.keys) - len(self.written))
        self.yahoo.now += timedelta(seconds=seconds)
        for event in [event for event in self._events if event[0] <= self.yahoo.now]:
            self._events.remove(event)
            event[1]()

    @asynccontextmanager
    async def connect(self, timeout_s: float = 5.0) -> AsyncIterator[Poller]:
        def now_s() -> float:
            return self.yahoo.now.timestamp()

        pacer = Pacer(clock_s=now_s, sleep=self.sleep, jitter=lambda: 1.0)
        yield Poller(Fetcher(self.yahoo, INGEST, self.yahoo.clock, pacer), timeout_s)

    def feed(self, settings: ServingSettings = SETTINGS, **options: Any) -> dict[str, Any]:
        writer = TickObjects(self.market, "r", self.session.day)
        live = (self.plan, self.session, writer, settings, options.pop("connect", self.connect))
        return feed_live(*live, say=self.said.append, clock=self.yahoo.clock, sleep=self.sleep, **options)

    @property
    def keys(self) -> list[str]:
        return [key for key in self.s3.puts if key.startswith(contract.TICKS_PREFIX)]

    @property
    def polls(self) -> list[pa.Table]:
        """The objects in the order they were written."""
        return [get_table(self.market, key) for key in self.keys]

    def minutes(self, poll: int) -> list[tuple[str, int]]:
        """Ticker and minute of each bar of one object."""
        table = self.polls[poll]
        minutes = (bar_starts(table) - self.session.open_ts) // 60
        return list(zip(table["ticker"].to_pylist(), minutes.tolist(), strict=True))


def two() -> dict[str, TickerBars]:
    return {"A": walk("A", SESSION), "B": walk("B", SESSION)}


def with_close(bars: TickerBars, minute: int, close: float) -> TickerBars:
    """The bars with one close, and what it needs of high and low, changed."""
    columns = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close")}
    columns["close"][minute] = close
    columns["high"][minute], columns["low"][minute] = (
        max(columns["high"][minute], close),
        min(columns["low"][minute], close),
    )
    return TickerBars(bars.ts, **columns, volume=bars.volume)


def test_each_minute_is_one_object_written_when_it_has_closed() -> None:
    live = Live(two())
    end = live.feed()
    assert [live.minutes(i) for i in range(8)] == [[("A", i), ("B", i)] for i in range(8)]
    assert live.written == [SESSION.open_ts + 60 * (i + 1) + SETTINGS.poll_delay_s for i in range(8)]
    assert live.keys == [contract.ticks_key("r", SESSION.day, (SESSION.open_ts + 60 * i) * 1000, i) for i in range(8)]
    assert latest_bars(live.polls).equals(to_table(two()))
    assert live.s3.puts[-1] == contract.feed_end_key("r")
    assert end == live.market.get_json(contract.feed_end_key("r"))
    assert end == {
        "last_key": live.keys[-1],
        "objects": 8,
        "ticks": 16,
        "revised": 0,
        "day": SESSION.day.isoformat(),
        "missed": {"polls": 0, "polls_in_part": 0, "polls_skipped": 0, "tickers": [], "minutes": 0},
    }
    assert live.said == []


def test_it_ends_a_minute_after_the_last_bars_when_no_more_come() -> None:
    live = Live(two())
    live.feed()
    assert live.yahoo.now.timestamp() == SESSION.close_ts + 60 + SETTINGS.poll_delay_s


def test_a_minute_that_has_not_closed_is_not_fed() -> None:
    live = Live(two(), early_min=-1)
    live.yahoo.now = minutes_after(SESSION, 3.5)  # half of minute 3, which Yahoo shows already
    live.feed()
    assert live.minutes(0) == [(ticker, minute) for ticker in "AB" for minute in range(3)]


def test_a_bar_that_comes_late_is_fed_when_it_comes() -> None:
    bars = two()
    late = bars["B"]
    live = Live(bars)
    live.yahoo.bars["B"] = late.part(np.arange(8) != 2)
    live.at(5.5, lambda: live.yahoo.bars.update(B=late))
    live.feed()
    assert live.minutes(2) == [("A", 2)]
    assert live.minutes(5) == [("A", 5), ("B", 2), ("B", 5)]
    assert latest_bars(live.polls).equals(to_table(bars))


def test_a_bar_that_is_revised_within_the_watermark_is_fed_again() -> None:
    live = Live(two())
    revised = with_close(with_close(live.yahoo.bars["A"], 1, 99.5), 4, 99.25)
    live.at(6.5, lambda: live.yahoo.bars.update(A=revised))
    live.feed(SETTINGS.model_copy(update={"watermark_min": 4}))
    assert live.minutes(6) == [("A", 4), ("A", 6), ("B", 6)]  # minute 1 is settled
    assert live.polls[6]["close"][0].as_py() == 99.25
    end = live.market.get_json(contract.feed_end_key("r"))
    assert (end["ticks"], end["revised"]) == (16, 1)


def test_a_poll_of_revised_bars_alone_sorts_after_what_was_read_before() -> None:
    live = Live({"A": walk("A", SESSION).part(np.arange(8) != 5)})
    revised = with_close(live.yahoo.bars["A"], 3, 99.5)
    live.at(5.9, lambda: live.yahoo.bars.update(A=revised))
    live.feed()
    assert live.minutes(5) == [("A", 3)]
    assert live.keys == sorted(live.keys)
    assert live.keys[5] == contract.ticks_key("r", SESSION.day, (SESSION.open_ts + 240) * 1000, 5)


def test_what_failing_polls_miss_comes_with_a_later_one() -> None:
    live = Live(two())
    live.at(3.05, lambda: live.yahoo.errors.update(A=[DOWN] * 4, B=[Malformed("garbage")] * 4))
    end = live.feed()
    assert len(live.keys) == 6
    assert live.minutes(2) == [(ticker, minute) for ticker in "AB" for minute in (2, 3, 4)]
    assert latest_bars(live.polls).equals(to_table(two()))
    assert end["missed"] == {"polls": 2, "polls_in_part": 0, "polls_skipped": 0, "tickers": [], "minutes": 0}
    assert live.said == [
        "2 of 2 tickers are not answered (A, B), first: 2 attempts failed, last: 503 Service Unavailable",
        "all 2 tickers are answered again",
    ]


def test_a_429_stops_the_worker_and_not_the_feed() -> None:
    live = Live(two())
    live.at(2.05, lambda: live.yahoo.errors.update(A=[RateLimited("A: 429", 70.0)]))
    live.feed()
    assert latest_bars(live.polls).equals(to_table(two()))
    assert live.keys == sorted(live.keys)


def test_a_ticker_that_yahoo_does_not_know_does_not_stop_the_others() -> None:
    live = Live({**two(), "GONE": NO_BARS})
    del live.yahoo.bars["GONE"]
    end = live.feed()
    assert latest_bars(live.polls).equals(to_table(two()))
    assert end["missed"]["tickers"] == ["GONE"]
    assert live.said == [
        "1 of 3 tickers are not answered (GONE), first: No data found, symbol may be delisted"
    ]  # once, not in each minute
    assert live.yahoo.now.timestamp() == SESSION.close_ts + 5 + 5 * 60 - 60  # as long as it is asked for, then grace_s


def test_yahoo_that_is_down_for_longer_than_its_patience_is_asked_again() -> None:
    live = Live(two())
    live.at(1.05, lambda: live.yahoo.errors.update(A=[DOWN] * 10, B=[DOWN] * 10))  # five polls: 300 s
    live.feed()
    assert latest_bars(live.polls).equals(to_table(two()))


def test_a_session_without_any_bar_is_an_error_and_has_no_end() -> None:
    live = Live({"A": NO_BARS})
    with pytest.raises(YahooError, match=f"Yahoo gave no bar of {SESSION.day}: every answer was empty"):
        live.feed()
    assert live.s3.puts == []
    assert live.yahoo.now.timestamp() == SESSION.close_ts + 5 + 240


@pytest.mark.parametrize("killed_after", range(9))
def test_a_feed_that_is_killed_goes_on_and_doubles_nothing(killed_after: int) -> None:
    s3 = CrashingS3(killed_after)
    live = Live(two(), s3=s3)
    with pytest.raises(Killed):
        live.feed()
    s3.changes_left = None
    live.yahoo.now += timedelta(seconds=100)
    end = live.feed()
    every = pa.concat_tables(live.polls)
    assert len(every) == 16 == end["ticks"]
    assert latest_bars([every.sort_by([("ticker", "ascending"), ("ts", "ascending")])]).equals(to_table(two()))
    assert live.keys == sorted(live.keys)
    assert [contract.ticks_place(key)[1] for key in live.keys] == list(range(end["objects"]))


def test_a_revision_that_was_fed_before_the_kill_is_not_fed_again() -> None:
    s3 = CrashingS3(5)
    live = Live(two(), s3=s3)
    revised = with_close(live.yahoo.bars["A"], 2, 99.5)
    live.at(3.5, lambda: live.yahoo.bars.update(A=revised))
    with pytest.raises(Killed):
        live.feed()
    s3.changes_left = None
    end = live.feed()
    assert (end["ticks"], end["revised"]) == (16, 1)


def test_a_half_day_ends_at_its_own_close() -> None:
    (half,) = sessions_between(date(2025, 11, 28), date(2025, 11, 28))
    assert half.minutes == 210
    live = Live({"A": walk("A", half)}, half)
    end = live.feed()
    assert (end["objects"], end["ticks"]) == (210, 210)
    assert live.yahoo.now == datetime(2025, 11, 28, 18, 1, 5, tzinfo=UTC)  # 13:01:05 in New York


def test_on_a_holiday_it_waits_for_the_next_session() -> None:
    thanksgiving = datetime(2025, 11, 27, 15, 0, tzinfo=UTC)
    plan = make_plan("r", ["A"], (BEFORE,), shards=1, request_days=7)
    session = served_session(plan, "live", thanksgiving, bucket())
    assert session.day == date(2025, 11, 28)
    live = Live({"A": walk("A", session)}, session)
    live.yahoo.now = thanksgiving
    live.feed()
    assert live.written[0] == session.open_ts + 65
    assert live.yahoo.asked.total() == 211


def test_the_session_is_chosen_once_for_a_run_by_who_comes_first() -> None:
    (session,) = sessions_between(date(2025, 11, 26), date(2025, 11, 26))
    plan, market = make_plan("r", ["A"], (BEFORE,), shards=1, request_days=7), bucket()
    before, after = utc(session.close_ts - 1), utc(session.close_ts)
    assert served_session(plan, "live", after, bucket()).day == date(2025, 11, 28)
    assert served_session(plan, "live", before, market) == session
    assert served_session(plan, "socket", after, market) == session
    assert served_session(plan, "replay", after, market) == BEFORE


def test_a_poll_that_takes_minutes_skips_to_the_next_one_that_is_due() -> None:
    class Slow(FakeYahoo):
        async def ask(self, ticker: str, span: Span, count: FetchCount) -> Reply:
            reply = await super().ask(ticker, span, count)
            if self.now == minutes_after(SESSION, 2) + timedelta(seconds=5):
                self.now += timedelta(seconds=130)
            return reply

    live = Live({"A": walk("A", SESSION)})
    live.yahoo = Slow(live.yahoo.bars, live.yahoo.now)
    end = live.feed()
    assert [len(poll) for poll in live.polls] == [1, 1, 3, 1, 1, 1]
    assert end["missed"]["polls_skipped"] == 2


def test_a_ticker_that_hangs_does_not_hold_up_the_others_and_is_asked_first_next_time() -> None:
    order: list[str] = []

    class Hanging(FakeYahoo):
        hangs = True

        async def ask(self, ticker: str, span: Span, count: FetchCount) -> Reply:
            order.append(ticker)
            if ticker == "B" and self.hangs:
                self.hangs = False
                await asyncio.sleep(60)
            return await super().ask(ticker, span, count)

    live = Live(two())
    live.yahoo = Hanging(live.yahoo.bars, live.yahoo.now)
    live.feed(connect=lambda: live.connect(0.05))
    assert order[:4] == ["A", "B", "B", "A"]
    assert live.minutes(0) == [("A", 0)]
    assert live.minutes(1) == [("A", 1), ("B", 0), ("B", 1)]
    assert live.said[0] == "1 of 2 tickers are not answered (B), first: no answer within 0.05 s"


@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from("AB"), st.integers(1, 6)), max_size=6),
    st.lists(st.integers(0, 7), max_size=3),
)
def test_whatever_fails_and_comes_late_each_bar_is_fed_once(
    failures: list[tuple[int, str, int]], late: list[int]
) -> None:
    live = Live(two())
    whole = live.yahoo.bars["A"]
    live.yahoo.bars["A"] = whole.part(~np.isin(np.arange(8), late))
    live.at(8.02, lambda: live.yahoo.bars.update(A=whole))
    for minute, ticker, times in failures:
        live.at(minute, lambda t=ticker, n=times: live.yahoo.errors.update({t: [DOWN] * n}))  # type: ignore[misc]
    end = live.feed()
    every = pa.concat_tables(live.polls).sort_by([("ticker", "ascending"), ("ts", "ascending")])
    assert every.equals(to_table(two()))
    assert live.keys == sorted(live.keys)
    assert end["ticks"] == 16


def test_progress_is_told_by_minutes() -> None:
    live = Live(two())
    told: list[tuple[int, int, str]] = []
    live.feed(report=lambda *words: told.append(words))
    assert told == [*((minute, 8, "minutes fed") for minute in range(1, 9)), (8, 8, "minutes fed")]


def test_the_chart_of_a_server_is_fed_through_the_direct_client(yahoo: LocalYahoo) -> None:
    """Over HTTP: charts of today with the running minute and Yahoo's row of the last price, a 503 and a 429."""
    live = Live(two())
    patient = INGEST.model_copy(update={"attempts": 5})  # all failures may be one ticker's
    failing = [Answer(status=503), Answer(status=429, headers={"Retry-After": "0"}), Answer("<html>", 200)]

    def answer(asked: Asked) -> Answer:
        ticker, now_s = unquote(asked.path).rpartition("/")[2], int(live.yahoo.now.timestamp())
        if now_s > SESSION.open_ts + 200 and failing:
            return failing.pop()
        bars = live.yahoo.bars[ticker].between(int(asked.query["period1"]), min(int(asked.query["period2"]), now_s))
        newest: list[Any] = [now_s - 2] if now_s % 60 else []
        return Answer(chart([*bars.ts.tolist(), *newest], [*bars.close.tolist(), *(100.0 for _ in newest)], ticker))

    yahoo.chart = answer
    end = live.feed(
        connect=lambda: open_poller(patient, 20.0, yahoo_url=yahoo.url, clock=live.yahoo.clock),
    )
    assert [live.minutes(i) for i in range(8)] == [[("A", i), ("B", i)] for i in range(8)]
    assert end["ticks"] >= 16  # this server's volumes are those of the row's place in the answer
    assert latest_bars(live.polls)["close"].equals(to_table(two())["close"])

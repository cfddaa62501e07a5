"""One request and all that may come of it, against a client that follows a script, in time that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from app.errors import YahooError
from app.ingest.chart import Delisted, Malformed, NoData, PassingFailure, RateLimited, RawBars, Refused
from app.ingest.counts import FetchCount
from app.ingest.fetch import Answer, Client, Fetcher
from app.ingest.pacing import Pacer
from app.ingest.plan import Span
from app.ingest.ticker_bars import TickerBars
from app.sessions import Session, utc
from app.settings import IngestSettings
from benchmarks.virtual_time import run_in_virtual_time
from tests.fakes import make_sessions
from tests.yahoo import Reply, ScriptedClient, minutes_after, raw, walk

SESSIONS = FIRST, SECOND = make_sessions(60, 40)
WHOLE = walk("A", FIRST)
SHORT, SHORTER = WHOLE.part(slice(0, 40)), WHOLE.part(slice(0, 30))
LATER = utc(SECOND.close_ts + 3600)
DROPPED = PassingFailure("A: the connection ended")
BUSY = RateLimited("A: 429 Too Many Requests")
NOT_LISTED = NoData("A: Data doesn't exist for startDate = 1, endDate = 2")


class Asked:
    """A fetcher's client, what it counted and what came of it."""

    def __init__(
        self,
        *script: RawBars | TickerBars | Exception,
        sessions: Sequence[Session] = (FIRST,),
        jitter: float = 0.5,
        latency_s: float = 0.0,
        now: datetime = LATER,
        **settings: Any,
    ) -> None:
        self.client = ScriptedClient(*script, latency_s=latency_s)
        self.count = FetchCount()
        self.ended_s = 0.0
        self._sessions, self._jitter, self._now = sessions, jitter, now
        self._settings = IngestSettings(**{"rate_per_s": 0, **settings})

    def answer(self) -> Answer:
        async def fetch() -> Answer:
            loop = asyncio.get_running_loop()
            fetcher = make_fetcher(self.client, self._settings, now=self._now, jitter=self._jitter)
            try:
                return await fetcher.fetch("A", self._sessions, self.count)
            finally:
                self.ended_s = loop.time()

        return run_in_virtual_time(fetch())

    def error(self, kind: type[Exception] = YahooError) -> str:
        with pytest.raises(kind) as caught:
            self.answer()
        return str(caught.value)

    @property
    def waits_s(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.client.asked_s)]


def make_fetcher(
    client: Client, settings: IngestSettings, *, now: datetime = LATER, jitter: float = 0.0, rate_per_s: float = 0.0
) -> Fetcher:
    loop = asyncio.get_running_loop()
    pacer = Pacer(rate_per_s, clock_s=loop.time, jitter=lambda: 0.0)
    return Fetcher(client, settings, lambda: now + timedelta(seconds=loop.time()), pacer, jitter=lambda: jitter)


# --- an answer -----------------------------------------------------------------------------------


def test_a_whole_answer_is_asked_for_once_and_is_sure() -> None:
    asked = Asked(WHOLE)
    answer = asked.answer()
    assert answer.bars.same_as(WHOLE)
    assert (answer.sure, answer.faults) == (True, {})
    assert asked.count == FetchCount(requests=1)


def test_many_sessions_are_one_request_from_the_first_open_to_the_last_close() -> None:
    asked = Asked(walk("A", *SESSIONS), sessions=SESSIONS)
    assert len(asked.answer().bars) == 100
    assert asked.client.spans == [Span(FIRST.open_ts, SECOND.close_ts)]


def test_the_answer_tells_when_its_last_request_was_sent() -> None:
    asked = Asked(DROPPED, WHOLE, latency_s=3, backoff_s=4)
    assert asked.answer().asked_ts == LATER.timestamp() + 3 + 2


def test_the_running_minute_is_no_bar_yet_and_the_answer_is_sure_of_the_rest() -> None:
    answer = Asked(WHOLE.part(slice(0, 31)), now=minutes_after(FIRST, 30.5)).answer()
    assert answer.bars.same_as(WHOLE.part(slice(0, 30)))
    assert (answer.sure, answer.faults) == (True, {"forming": 1})


def test_a_ticker_without_any_bar_is_asked_twice_and_then_believed() -> None:
    asked = Asked(WHOLE.part(slice(0, 0)))
    answer = asked.answer()
    assert (len(answer.bars), answer.sure, asked.count.verified) == (0, True, 1)


def test_a_ticker_that_was_not_listed_then_is_asked_twice_and_has_no_bars() -> None:
    asked = Asked(NOT_LISTED, attempts=2)
    answer = asked.answer()
    assert (len(answer.bars), answer.sure, answer.faults) == (0, True, {})
    assert asked.count == FetchCount(requests=2, verified=1)


def test_a_ticker_that_is_listed_after_all_has_its_bars() -> None:
    asked = Asked(NOT_LISTED, WHOLE)
    answer = asked.answer()
    assert answer.bars.same_as(WHOLE)
    assert (answer.sure, asked.count) == (True, FetchCount(requests=2, verified=1))


# --- retries -------------------------------------------------------------------------------------


def test_what_passes_is_tried_again_and_counted() -> None:
    asked = Asked(DROPPED, Malformed("A: no chart"), DROPPED, WHOLE)
    assert asked.answer().bars.same_as(WHOLE)
    assert asked.count == FetchCount(requests=4, retries=3)


def test_the_last_attempts_error_is_told_with_their_number_and_nobody_waits_after_it() -> None:
    asked = Asked(Malformed("A: no chart"), Malformed("A: no chart"), DROPPED, attempts=3)
    assert asked.error() == "A: 3 attempts failed, last: the connection ended"
    assert asked.count == FetchCount(requests=3, retries=2)
    assert asked.ended_s == asked.client.asked_s[-1]


def test_the_back_off_doubles_up_to_half_a_minute() -> None:
    asked = Asked(DROPPED, attempts=8, backoff_s=2)
    asked.error()
    assert asked.waits_s == [1, 2, 4, 8, 15, 15, 15]  # half of it by the jitter


@pytest.mark.parametrize(("jitter", "share"), [(0.0, 0), (0.25, 0.25), (1.0, 1)])
def test_the_jitter_is_full_from_nothing_to_the_whole_back_off(jitter: float, share: float) -> None:
    asked = Asked(DROPPED, attempts=4, backoff_s=2, jitter=jitter)
    asked.error()
    assert asked.waits_s == [2 * share, 4 * share, 8 * share]


@pytest.mark.parametrize(("retry_after_s", "wait_s"), [(7, 7), (0.5, 1)])
def test_a_failing_server_is_left_alone_for_what_it_asks_or_the_back_off_whichever_is_longer(
    retry_after_s: float, wait_s: float
) -> None:
    asked = Asked(PassingFailure("A: status 503", retry_after_s=retry_after_s), WHOLE, backoff_s=2)
    asked.answer()
    assert asked.waits_s == [wait_s]


@pytest.mark.parametrize("word", [Delisted("A: No data found, symbol may be delisted"), Refused("A: too old")])
def test_yahoos_own_word_is_final(word: Exception) -> None:
    asked = Asked(word, WHOLE)
    assert asked.error(type(word)) == str(word)
    assert asked.count == FetchCount(requests=1)


# --- 429 -----------------------------------------------------------------------------------------


def test_a_429_is_no_attempt() -> None:
    asked = Asked(*[BUSY] * 5, DROPPED, WHOLE, attempts=2)
    assert asked.answer().bars.same_as(WHOLE)
    assert asked.count == FetchCount(requests=7, retries=6, rate_limited=5)


def test_after_a_429_nobody_is_asked_for_as_long_as_the_server_wants() -> None:
    asked = Asked(RateLimited("A: 429", retry_after_s=40), WHOLE)
    asked.answer()
    assert asked.waits_s == [40]


def test_a_429_stops_the_requests_of_all_tickers() -> None:
    async def fetch() -> list[float]:
        client = ScriptedClient(WHOLE, WHOLE, RateLimited("B: 429", retry_after_s=30), WHOLE, latency_s=0.1)
        fetcher = make_fetcher(client, IngestSettings(in_flight=1), rate_per_s=100)
        await asyncio.gather(*(fetcher.fetch(ticker, (FIRST,), FetchCount()) for ticker in "ABCDE"))
        return client.asked_s

    asked_s = run_in_virtual_time(fetch())
    assert len(asked_s) == 6
    assert [round(at_s) for at_s in asked_s[:3]] == [0, 0, 0]
    assert min(asked_s[4:]) > 30  # one more may be on its way when the third is read


@pytest.mark.parametrize("attempts", [2, 20])
def test_a_failing_server_that_asks_for_a_pause_stops_the_requests_of_all_tickers(attempts: int) -> None:
    async def fetch() -> list[float]:
        busy = PassingFailure("A: status 503", retry_after_s=30)
        client = ScriptedClient(busy, WHOLE, busy, WHOLE)
        fetcher = make_fetcher(client, IngestSettings(in_flight=1, attempts=attempts))
        await asyncio.gather(*(fetcher.fetch(ticker, (FIRST,), FetchCount()) for ticker in "ABC"))
        return client.asked_s

    asked_s = run_in_virtual_time(fetch())
    assert len(asked_s) == 5
    assert [round(at_s) for at_s in asked_s] == [0, 30, 30, 60, 60]


def test_the_pause_that_the_last_attempt_was_asked_for_holds_for_the_other_tickers() -> None:
    async def fetch() -> list[float]:
        busy = PassingFailure("A: status 503", retry_after_s=30)
        client = ScriptedClient(busy, busy, WHOLE)
        fetcher = make_fetcher(client, IngestSettings(attempts=2))
        with pytest.raises(YahooError, match="A: 2 attempts failed, last: status 503"):
            await fetcher.fetch("A", (FIRST,), FetchCount())
        await fetcher.fetch("B", (FIRST,), FetchCount())
        return client.asked_s

    assert run_in_virtual_time(fetch()) == [0, 30, 60]


def test_a_worker_that_is_refused_for_too_long_gives_up_and_says_why() -> None:
    asked = Asked(RateLimited("A: 429", retry_after_s=50), patience_s=120)
    assert asked.error() == "A: no answer from Yahoo in more than 120 s: 429 Too Many Requests"
    assert asked.client.asked_s == [0, 50, 100, 150, 200]  # the fifth failure tells


def test_a_worker_without_any_answer_for_too_long_gives_up_whatever_the_reason() -> None:
    asked = Asked(DROPPED, latency_s=10, attempts=20, backoff_s=0, patience_s=55)
    assert asked.error() == "A: no answer from Yahoo in more than 55 s"
    assert asked.client.asked_s == [0, 10, 20, 30, 40, 50, 60]  # 50 s after the first failure, and once more


@pytest.mark.parametrize("kind", [RateLimited, PassingFailure])
def test_a_pause_that_is_longer_than_the_patience_fails_all_tickers_at_once_and_nothing_more_is_sent(
    kind: type[PassingFailure],
) -> None:
    async def fetch() -> tuple[list[str], list[float], float]:
        client = ScriptedClient(WHOLE, kind("B: busy", retry_after_s=7200), WHOLE)
        fetcher = make_fetcher(client, IngestSettings(in_flight=1, patience_s=120))
        tickers = (fetcher.fetch(ticker, (FIRST,), FetchCount()) for ticker in "ABCD")
        found = await asyncio.gather(*tickers, return_exceptions=True)
        return [str(one) for one in found[1:]], client.asked_s, asyncio.get_running_loop().time()

    errors, asked_s, ended_s = run_in_virtual_time(fetch())
    assert errors == [f"{name}: Yahoo asks for a pause of 7200 s, longer than ingest.patience_s" for name in "BCD"]
    assert (asked_s, ended_s) == ([0, 0], 0)


def test_a_pause_as_long_as_the_patience_is_waited_for() -> None:
    asked = Asked(RateLimited("A: 429", retry_after_s=120), WHOLE, patience_s=120)
    assert asked.answer().sure
    assert asked.waits_s == [120]


@pytest.mark.parametrize("failure", [PassingFailure("A: status 500"), BUSY])
def test_a_worker_that_may_ask_once_in_200_s_loses_no_ticker_to_one_failure(failure: PassingFailure) -> None:
    async def fetch() -> tuple[list[bool], list[float]]:
        client = ScriptedClient(WHOLE, failure, WHOLE)
        fetcher = make_fetcher(client, IngestSettings(patience_s=120), rate_per_s=1 / 200)
        answers = await asyncio.gather(*(fetcher.fetch(ticker, (FIRST,), FetchCount()) for ticker in "ABCD"))
        return [answer.sure for answer in answers], client.asked_s

    sure, asked_s = run_in_virtual_time(fetch())
    assert sure == [True] * 4
    assert asked_s == pytest.approx([0, 200, 400, 600, 800])


def test_any_answer_to_any_ticker_renews_the_patience() -> None:
    async def fetch() -> Answer:
        refused = ScriptedClient(*[RateLimited("A: 429", retry_after_s=20)] * 8, WHOLE)
        fetcher = make_fetcher(refused, IngestSettings(patience_s=30))

        async def answers_to_others() -> None:
            while True:
                await asyncio.sleep(15)
                fetcher.pacer.answered()

        others = asyncio.create_task(answers_to_others())
        try:
            return await fetcher.fetch("A", (FIRST,), FetchCount())
        finally:
            others.cancel()

    assert run_in_virtual_time(fetch()).sure


# --- doubtful answers ----------------------------------------------------------------------------


def test_a_short_answer_is_asked_for_again_and_the_whole_one_is_sure() -> None:
    asked = Asked(SHORT, WHOLE)
    answer = asked.answer()
    assert answer.bars.same_as(WHOLE)
    assert answer.sure
    assert asked.count == FetchCount(requests=2, verified=1)


def test_two_short_answers_that_agree_are_believed() -> None:
    asked = Asked(SHORT)
    answer = asked.answer()
    assert answer.bars.same_as(SHORT)
    assert answer.sure
    assert asked.count == FetchCount(requests=2, verified=1)


def test_answers_that_differ_are_asked_for_until_two_in_a_row_agree() -> None:
    asked = Asked(SHORT, SHORTER, SHORT, SHORT)
    assert asked.answer().sure
    assert asked.count.verified == 3


def test_what_any_answer_held_is_kept_and_the_later_one_wins() -> None:
    ends = WHOLE.part(np.r_[0:20, 50:60])
    middle = walk("B", FIRST).part(slice(10, 30))
    answer = Asked(ends, middle, middle).answer()
    assert answer.bars.ts.tolist() == WHOLE.ts[np.r_[0:30, 50:60]].tolist()
    assert answer.bars.close[10:30].tolist() == middle.close.tolist()
    assert answer.bars.close[:10].tolist() == WHOLE.close[:10].tolist()


def test_answers_that_never_agree_are_asked_for_as_often_as_attempts_allow_and_are_not_sure() -> None:
    lengths = [30, 31, 32, 33, 34, 35]
    asked = Asked(*(WHOLE.part(slice(0, length)) for length in lengths), attempts=4)
    answer = asked.answer()
    assert (len(answer.bars), answer.sure) == (33, False)
    assert asked.count == FetchCount(requests=4, verified=3)


def test_between_two_looks_lies_the_back_off() -> None:
    asked = Asked(SHORT, SHORTER, SHORT, SHORTER, attempts=4, backoff_s=2)
    asked.answer()
    assert asked.waits_s == [1, 2, 4]


def test_a_second_look_has_attempts_of_its_own() -> None:
    asked = Asked(DROPPED, SHORT, DROPPED, SHORT, attempts=2)
    assert asked.answer().sure
    assert asked.count == FetchCount(requests=4, retries=2, verified=1)


def test_faults_are_those_of_the_worst_answer_and_an_answer_that_lost_a_row_is_doubtful() -> None:
    broken = raw(WHOLE)
    broken.close[[3, 7]] = -1.0
    asked = Asked(broken, WHOLE)
    answer = asked.answer()
    assert answer.bars.same_as(WHOLE)
    assert (answer.sure, answer.faults, asked.count.verified) == (True, {"not positive": 2}, 1)


# --- many at once --------------------------------------------------------------------------------


def test_no_more_requests_are_in_flight_than_allowed_and_as_many_are() -> None:
    class Counting(ScriptedClient):
        """Counts the requests that wait for their answer."""

        now = peak = 0

        async def ask(self, ticker: str, span: Span, count: FetchCount) -> Reply:
            """The next answer."""
            self.now += 1
            self.peak = max(self.peak, self.now)
            try:
                return await super().ask(ticker, span, count)
            finally:
                self.now -= 1

    client = Counting(DROPPED, BUSY, WHOLE, latency_s=1.0)

    async def fetch() -> None:
        fetcher = make_fetcher(client, IngestSettings(in_flight=7))
        await asyncio.gather(*(fetcher.fetch("A", (FIRST,), FetchCount()) for _ in range(30)))

    run_in_virtual_time(fetch())
    assert client.peak == 7


def test_a_request_that_backs_off_leaves_its_place_to_others() -> None:
    async def fetch() -> list[float]:
        client = ScriptedClient(DROPPED, WHOLE, latency_s=1.0)
        fetcher = make_fetcher(client, IngestSettings(in_flight=1, backoff_s=10), jitter=1.0)
        await asyncio.gather(*(fetcher.fetch(ticker, (FIRST,), FetchCount()) for ticker in "ABC"))
        return client.asked_s

    assert run_in_virtual_time(fetch()) == [0, 1, 2, 11]


def test_requests_go_out_at_the_pace_that_is_allowed() -> None:
    async def fetch() -> list[float]:
        client = ScriptedClient(WHOLE)
        fetcher = make_fetcher(client, IngestSettings(), rate_per_s=10)
        await asyncio.gather(*(fetcher.fetch("A", (FIRST,), FetchCount()) for _ in range(105)))
        return client.asked_s

    assert run_in_virtual_time(fetch())[-1] == pytest.approx(10)

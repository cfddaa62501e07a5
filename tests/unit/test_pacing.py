"""The pace of one worker, against the embedded Yahoo's own limit, on a loop whose time jumps."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from app.ingest.pacing import Pacer, PauseTooLong
from benchmarks.virtual_time import run_in_virtual_time
from embedded.yahoo.faults import TokenBucket

BUDGET_PER_S = 50.0
IN_FLIGHT = 64
LATENCY_S = 0.15


@dataclass
class Told:
    """What came of all requests: when each was answered, and how many were refused on the way."""

    answered_s: list[float] = field(default_factory=list)
    refused: int = 0
    rates_per_s: list[tuple[float, float]] = field(default_factory=list)


def work(
    requests: int,
    server_per_s: Callable[[float], float] = lambda now_s: 0.0,
    *,
    budget_per_s: float = BUDGET_PER_S,
    workers: int = 1,
    retry_after_s: int = 1,
    seed: int = 0,
) -> Told:
    """Let workers ask a server that answers so many requests a second (at a time) until all are answered."""

    async def run() -> Told:
        clock_s, rng = asyncio.get_running_loop().time, random.Random(seed)
        buckets: dict[float, TokenBucket] = {}
        left, told = list(range(requests)), Told()

        async def ask(pacer: Pacer) -> None:
            while left:
                left.pop()
                refused = True
                while refused:
                    turn = await pacer.turn()
                    told.rates_per_s.append((clock_s(), pacer.rate_per_s))
                    await asyncio.sleep(LATENCY_S * rng.uniform(0.7, 1.3))
                    limit = server_per_s(clock_s())
                    wait_s = buckets.setdefault(limit, TokenBucket(limit, clock_s)).wait_s()
                    refused = wait_s > 0
                    if refused:
                        told.refused += 1
                        pacer.refused(turn, max(retry_after_s, math.ceil(wait_s)))
                    else:
                        pacer.answered()
                        told.answered_s.append(clock_s())

        pacers = [Pacer(budget_per_s / workers, clock_s=clock_s, jitter=rng.random) for _ in range(workers)]
        await asyncio.gather(*(ask(pacer) for pacer in pacers for _ in range(IN_FLIGHT)))
        return told

    return run_in_virtual_time(run())


def per_s(told: Told) -> float:
    return len(told.answered_s) / told.answered_s[-1]


def test_a_few_refusals_at_random_stop_the_worker_and_tell_no_limit() -> None:
    async def run() -> tuple[Pacer, float]:
        clock_s, rng = asyncio.get_running_loop().time, random.Random(1)
        pacer = Pacer(clock_s=clock_s, jitter=rng.random)
        for _ in range(6_000):
            turn = await pacer.turn()
            await asyncio.sleep(0.005)
            if rng.random() < 0.002:
                pacer.refused(turn, 1)
            else:
                pacer.answered()
        return pacer, clock_s()

    pacer, took_s = run_in_virtual_time(run())
    assert pacer.rate_per_s > 150  # of the 200 a second that one after another can be
    assert 30 + 5 < took_s < 30 + 30  # each of some twelve refusals is a pause of a second


# --- against a server that enforces a limit ------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("limit", "budget_per_s"), [*((limit, 0.0) for limit in (5, 10, 20, 50, 100, 200)), (5, 50.0), (20, 50.0)]
)
def test_over_a_minute_at_least_95_percent_of_the_servers_limit_is_used_and_nothing_is_lost(
    limit: int, budget_per_s: float, seed: int
) -> None:
    told = work(60 * limit, lambda _: limit, budget_per_s=budget_per_s, seed=seed)
    assert len(told.answered_s) == 60 * limit
    assert per_s(told) >= 0.95 * limit


def test_refusals_are_few_once_the_limit_is_found() -> None:
    told = work(50 * 60, lambda _: 50, budget_per_s=0)
    assert told.refused < 0.05 * len(told.answered_s)


def test_a_server_that_asks_for_no_pause_is_followed_too() -> None:
    told = work(20 * 60, lambda _: 20, budget_per_s=0, retry_after_s=0)
    assert per_s(told) >= 0.9 * 20


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_that_share_a_limit_use_it_together(workers: int) -> None:
    told = work(40 * 60, lambda _: 40, workers=workers)
    assert len(told.answered_s) == 40 * 60
    assert per_s(told) >= 0.9 * 40


def test_the_limit_is_left_behind_when_it_is_lifted() -> None:
    told = work(50 * 60, lambda now_s: 10 if now_s < 20 else 0)
    rates = [rate for at_s, rate in told.rates_per_s if at_s > 50]
    assert set(rates) == {BUDGET_PER_S}
    assert max(rate for at_s, rate in told.rates_per_s if 10 < at_s < 20) < 15


def test_a_limit_that_falls_is_followed_down() -> None:
    told = work(2000, lambda now_s: 50 if now_s < 20 else 10)
    after = [at_s for at_s in told.answered_s if at_s > 25]
    assert len(after) / (after[-1] - 25) >= 0.9 * 10


# --- within its budget ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_budget_is_kept_without_any_refusal(workers: int) -> None:
    told = work(1200, budget_per_s=20, workers=workers)
    assert told.refused == 0
    assert per_s(told) == pytest.approx(20, rel=0.03)
    for first_s in range(55):
        in_5_s = sum(first_s <= at_s < first_s + 5 for at_s in told.answered_s)
        assert in_5_s <= 5 * 20 + 20 * 0.5 + 3  # a burst, and what the latency scatters


def test_without_a_budget_nobody_waits() -> None:
    told = work(1000, budget_per_s=0)
    assert told.answered_s[-1] <= math.ceil(1000 / IN_FLIGHT) * LATENCY_S * 1.3


# --- one refusal after another -------------------------------------------------------------------


class FakeTime:
    """Time that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class Paced:
    """A pacer in time of its own."""

    pacer: Pacer
    time: FakeTime

    def turn(self) -> int:
        return asyncio.run(self.pacer.turn())

    def wait_s(self) -> float:
        """How long the next turn takes to come."""
        before_s = self.time.now_s
        self.turn()
        return self.time.now_s - before_s

    def answer(self, requests: int, every_s: float) -> None:
        for _ in range(requests):
            self.time.now_s += every_s
            self.pacer.answered()


def paced(budget_per_s: float = 0.0, jitter: float = 0.0) -> Paced:
    time = FakeTime()
    return Paced(Pacer(budget_per_s, clock_s=time, sleep=time.sleep, jitter=lambda: jitter), time)


@pytest.mark.parametrize(("jitter", "pause_s"), [(0.0, 7.0), (0.5, 7.35), (1.0, 7.7)])
def test_a_refusal_stops_the_worker_for_as_long_as_it_was_asked_to_wait_or_a_little_longer(
    jitter: float, pause_s: float
) -> None:
    worker = paced(jitter=jitter)
    worker.pacer.refused(worker.turn(), 7)
    assert worker.wait_s() == pytest.approx(pause_s)


def test_the_longest_of_several_pauses_counts() -> None:
    worker = paced()
    turn = worker.turn()
    worker.pacer.refused(turn, 7)
    worker.pacer.refused(turn, 2)
    assert worker.wait_s() == pytest.approx(7)
    worker.pacer.refused(worker.turn(), 2)
    worker.pacer.refused(turn, 7)
    assert worker.wait_s() == pytest.approx(7)


def test_a_pause_that_nobody_asked_for_doubles_with_each_refusal_in_a_row_to_half_a_minute() -> None:
    worker, pauses = paced(budget_per_s=50, jitter=1.0), []
    for _ in range(7):
        turn = worker.turn()
        refused_s = worker.time.now_s
        worker.pacer.refused(turn, 0)
        worker.turn()
        pauses.append(worker.time.now_s - refused_s)
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30])


def test_an_answer_ends_the_row() -> None:
    worker = paced(budget_per_s=50, jitter=1.0)
    for _ in range(4):
        worker.pacer.refused(worker.turn(), 0)
    worker.turn()
    worker.pacer.answered()
    worker.pacer.refused(worker.turn(), 0)
    assert worker.wait_s() == pytest.approx(1)


def test_it_goes_on_a_little_below_the_rate_at_which_answers_came() -> None:
    worker = paced()
    turn = worker.turn()
    worker.answer(40, every_s=0.1)  # 10 a second
    worker.pacer.refused(turn, 1)
    worker.turn()
    assert worker.pacer.rate_per_s == pytest.approx(0.95 * 10)


def test_the_length_of_the_pause_does_not_raise_the_rate_after_it() -> None:
    worker = paced()
    turn = worker.turn()
    worker.answer(40, every_s=0.1)
    worker.pacer.refused(turn, 60)
    assert worker.wait_s() == pytest.approx(60)
    assert worker.pacer.rate_per_s == pytest.approx(0.95 * 10)
    worker.time.now_s += 5
    worker.turn()
    assert worker.pacer.rate_per_s < 10


def test_of_many_requests_refused_on_the_way_together_only_the_first_slows_the_worker_down() -> None:
    rates = []
    for refusals in (1, 60):
        worker = paced()
        turns = [worker.turn() for _ in range(60)]
        worker.answer(40, every_s=0.1)
        for turn in turns[:refusals]:
            worker.pacer.refused(turn, 1)
        worker.turn()
        rates.append(worker.pacer.rate_per_s)
    assert rates[0] == rates[1]


def test_a_refusal_of_a_later_turn_slows_it_down_again() -> None:
    worker = paced(budget_per_s=40)
    worker.pacer.refused(worker.turn(), 1)
    worker.turn()
    assert worker.pacer.rate_per_s == 20  # no answer told the limit
    worker.pacer.refused(worker.turn(), 1)
    worker.turn()
    assert worker.pacer.rate_per_s == pytest.approx(10, rel=0.05)


def test_the_rate_grows_slowly_at_first_and_faster_later_up_to_the_budget_and_never_over_it() -> None:
    worker = paced(budget_per_s=20)
    turn = worker.turn()
    worker.answer(40, every_s=0.1)
    worker.pacer.refused(turn, 1)
    rates = []
    for second in range(31):
        worker.time.now_s = 5.0 + second
        worker.turn()
        rates.append(worker.pacer.rate_per_s)
    steps = [later / earlier for earlier, later in pairwise(rates)]
    assert rates[0] == pytest.approx(0.95 * 10)
    assert steps[:9] == pytest.approx([1.003] * 9)
    assert steps[10:15] == pytest.approx([1.1] * 5)
    assert max(rates) == rates[-1] == 20


def test_the_rate_never_falls_to_nothing() -> None:
    worker = paced(budget_per_s=1)
    for _ in range(20):
        worker.pacer.refused(worker.turn(), 1)
    worker.turn()
    assert worker.pacer.rate_per_s >= 0.2


@pytest.mark.parametrize("budget_per_s", [1 / 200, 0.1])
def test_a_refusal_never_makes_a_worker_faster_than_its_share_of_the_budget(budget_per_s: float) -> None:
    worker = paced(budget_per_s)
    worker.pacer.refused(worker.turn(), 1)
    assert worker.wait_s() == pytest.approx(1 / budget_per_s)
    assert worker.pacer.rate_per_s == budget_per_s


def test_thousands_of_refusals_in_a_row_that_ask_for_nothing_are_half_a_minute_apart() -> None:
    worker = paced(budget_per_s=50, jitter=1.0)

    async def refuse(times: int) -> None:
        for _ in range(times):
            worker.pacer.refused(await worker.pacer.turn(), 0)

    asyncio.run(refuse(2_000))
    assert worker.time.now_s == pytest.approx(1 + 2 + 4 + 8 + 16 + 1_994 * 30)
    assert worker.wait_s() == pytest.approx(30)


# --- pauses and patience -------------------------------------------------------------------------


def test_a_pause_that_the_server_asks_for_stops_the_worker_and_does_not_slow_it_down() -> None:
    worker = paced(budget_per_s=50)
    assert worker.pacer.pause_s == 0
    worker.pacer.pause(7)
    assert worker.pacer.pause_s == 7
    worker.time.now_s += 2
    assert worker.pacer.pause_s == 5
    assert worker.wait_s() == pytest.approx(5)
    assert (worker.pacer.pause_s, worker.pacer.rate_per_s) == (0, 50)


def test_a_shorter_pause_does_not_end_a_longer_one_and_workers_come_back_apart() -> None:
    worker = paced(jitter=0.5)
    worker.pacer.pause(20)
    worker.pacer.pause(1)
    assert worker.wait_s() == pytest.approx(20 * 1.05)


def test_who_does_not_wait_so_long_gets_no_turn_until_the_pause_is_shorter() -> None:
    worker = paced()
    worker.pacer.pause(7200)
    with pytest.raises(PauseTooLong, match=r"^Yahoo asks for a pause of 7200 s$"):
        asyncio.run(worker.pacer.turn(longest_pause_s=120))
    assert worker.time.now_s == 0
    worker.time.now_s = 7100
    asyncio.run(worker.pacer.turn(longest_pause_s=120))
    assert worker.time.now_s == 7200


def test_a_pause_that_nobody_asked_for_is_waited_for_by_whoever_has_little_patience() -> None:
    worker = paced(budget_per_s=50, jitter=1.0)
    for _ in range(7):
        worker.pacer.refused(asyncio.run(worker.pacer.turn(longest_pause_s=2)), 0)
        assert worker.pacer.pause_s == 0
    assert worker.time.now_s == pytest.approx(1 + 2 + 4 + 8 + 16 + 30)


def test_what_is_added_so_that_workers_come_back_apart_is_nothing_that_the_server_asked_for() -> None:
    worker = paced(jitter=1.0)
    worker.pacer.pause(120)
    asyncio.run(worker.pacer.turn(longest_pause_s=120))
    assert worker.time.now_s == pytest.approx(132)
    worker.pacer.pause(7200)
    with pytest.raises(PauseTooLong, match="of 7200 s"):
        asyncio.run(worker.pacer.turn(longest_pause_s=120))


def test_a_low_rate_of_its_own_is_no_pause() -> None:
    worker = paced(budget_per_s=1 / 200)
    worker.turn()
    asyncio.run(worker.pacer.turn(longest_pause_s=120))
    assert worker.time.now_s == pytest.approx(200)


def test_all_who_wait_learn_of_a_pause_that_is_too_long() -> None:
    async def run() -> list[object]:
        pacer = Pacer(0.1, clock_s=asyncio.get_running_loop().time, jitter=lambda: 0.0)
        await pacer.turn()
        waiting = [asyncio.create_task(pacer.turn(longest_pause_s=120)) for _ in range(5)]
        await asyncio.sleep(1)
        pacer.pause(500)
        found = await asyncio.gather(*waiting, return_exceptions=True)
        return [asyncio.get_running_loop().time(), *(type(one) for one in found)]

    assert run_in_virtual_time(run()) == [pytest.approx(10), *[PauseTooLong] * 5]


def test_time_is_fruitless_from_the_first_of_five_failures_in_a_row_on() -> None:
    worker = paced()
    worker.time.now_s = 100.0
    assert worker.pacer.fruitless_s() == 0
    told = []
    for _ in range(6):
        worker.pacer.failed()
        worker.time.now_s += 10
        told.append(worker.pacer.fruitless_s())
    assert told == [0, 0, 0, 0, 50, 60]


def test_refusals_are_failures_and_an_answer_ends_the_row_of_them() -> None:
    worker = paced()
    for _ in range(3):
        worker.pacer.failed()
        worker.pacer.refused(worker.turn(), 1)
    worker.time.now_s += 10
    assert worker.pacer.fruitless_s() == worker.time.now_s
    worker.pacer.answered()
    assert worker.pacer.fruitless_s() == 0
    answered_s = worker.time.now_s
    worker.time.now_s += 10
    for _ in range(5):
        worker.pacer.failed()
    worker.time.now_s += 5
    assert worker.pacer.fruitless_s() == worker.time.now_s - answered_s - 10 == 5

"""How fast one worker asks: a token bucket whose rate follows what the server lets through.

Without a refusal the rate is the worker's share of the fleet's budget. A 429 stops the whole worker for as long as
the server asks. Unless it was one of a few among many answers, the worker then goes on a little below the rate at which
answers really came, and from there up again: slowly at first, since the limit is near, then faster, since it may be
gone (additive increase, multiplicative decrease, as TCP: Chiu and Jain 1989).
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable

_BURST_S = 0.5
"""Tokens of so many seconds may be spent at once."""
_DECREASE = 0.95
"""Of the rate at which answers came: they tell the limit, so little is left to give up."""
_INCREASE_PER_S = 0.003
"""Of the current rate, each second after a refusal ..."""
_CAUTION_S = 10.0
"""... for so long, then ..."""
_RECOVERY_PER_S = 0.1
"""... this."""
_SEARCH_PER_S = 0.5
"""As long as the limit is not known, since answers were counted for less than ..."""
_TELLING_S = 1.0
"""... this."""
_MEMORY_S = 10.0
"""Time over which answers are counted to tell the rate at which they came."""
_RANDOM_SHARE = 0.005
"""Refusals for each answer that stop the worker for a while but tell no limit."""
_ENOUGH = 5
"""With fewer answers the rate is halved instead, from ..."""
_BLIND_PER_S = 64.0
"""... at most this."""
_LEAST_PER_S = 0.2
_PAUSE_S = 1.0
"""First pause after a refusal that asks for none; doubled with each refusal in a row."""
_LONGEST_PAUSE_S = 30.0
_DOUBLINGS = 10
_ROUNDING = 1e-6
_SPREAD = 0.1
"""Workers that were refused together come back within this share of the pause of each other."""


class PauseTooLong(Exception):
    """The server wants to be left alone for longer than anybody here waits."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"Yahoo asks for a pause of {seconds:.0f} s")


class Pacer:
    """Gives turns to the requests of one worker; for one asyncio loop."""

    def __init__(
        self,
        limit_per_s: float = 0.0,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """limit_per_s: the worker's share of the budget, 0 is no limit. jitter: uniform in 0..1."""
        self._limit_per_s = limit_per_s or math.inf
        self._rate_per_s = self._limit_per_s
        self._clock_s, self._sleep, self._jitter = clock_s, sleep, jitter
        self._started_s = self._counted_s = self._failing_s = clock_s()
        self._tokens = self._capacity()
        self._resume_s = self._asked_until_s = self._slowed_s = -math.inf
        self._slowdowns = self._in_a_row = self._failures = 0
        self._to_be_set = self._searching = False
        self._answers: deque[float] = deque()
        self._refusals: deque[float] = deque()
        self._queue = asyncio.Lock()

    @property
    def rate_per_s(self) -> float:
        """Requests a second that are given turns now; infinite while there is neither a budget nor a refusal."""
        return self._rate_per_s

    @property
    def pause_s(self) -> float:
        """Seconds for which the server still wants to be left alone."""
        return max(0.0, self._asked_until_s - self._clock_s())

    def fruitless_s(self) -> float:
        """Seconds since the first of several failures in a row, without an answer between; 0 after an answer.

        Time in which nothing was sent because the worker's own rate is low is no sign of a server that is gone, so
        it takes some failures, not time alone.
        """
        return self._clock_s() - self._failing_s if self._failures >= _ENOUGH else 0.0

    def renew_patience(self) -> None:
        """Forget failures in a row: a new round of requests asks again, at the rate that the server let through."""
        self._failures = 0

    async def turn(self, longest_pause_s: float = math.inf) -> int:
        """Wait for leave to send one request; returns the turn's age, which `refused` wants back.

        Raises PauseTooLong when the server asked for a longer pause than that.
        """
        async with self._queue:
            while (wait_s := self._wait_s()) > 0:
                if self.pause_s > longest_pause_s:
                    raise PauseTooLong(self.pause_s)
                await self._sleep(wait_s)
            self._tokens -= 1
            return self._slowdowns

    def answered(self) -> None:
        """The server answered a request, whatever it said, but did not refuse it."""
        now_s = self._clock_s()
        self._in_a_row = self._failures = 0
        self._answers.append(now_s)
        while self._answers[0] < now_s - _MEMORY_S:
            self._answers.popleft()

    def failed(self) -> None:
        """A request got no answer that can be used."""
        if not self._failures:
            self._failing_s = self._clock_s()
        self._failures += 1

    def pause(self, seconds: float) -> None:
        """The server asked for a pause, whatever else it said."""
        now_s = self._clock_s()
        self._asked_until_s = max(self._asked_until_s, now_s + seconds)
        self._resume_s = max(self._resume_s, now_s + seconds * (1 + _SPREAD * self._jitter()))

    def refused(self, turn: int, retry_after_s: float) -> None:
        """The server refused the request of this turn and asked to wait so long, 0 when it asked for nothing.

        Each of them stops the worker; only more than a few slow it down, once for all that were on their way together.
        """
        self.failed()
        now_s = self._clock_s()
        self._refill(now_s)
        if turn == self._slowdowns:
            if now_s >= self._resume_s:
                self._in_a_row += 1
            self._refusals.append(now_s)
            if self._is_the_limit(now_s):
                self._slowdowns += 1
                self._slowed_s = now_s
                self._to_be_set = True
                self._refusals.clear()
        if retry_after_s:
            self.pause(retry_after_s)
        else:
            longest_s = min(_LONGEST_PAUSE_S, _PAUSE_S * 2 ** min(self._in_a_row - 1, _DOUBLINGS))
            self._resume_s = max(self._resume_s, now_s + longest_s * self._jitter())

    def _is_the_limit(self, now_s: float) -> bool:
        """Whether refusals are more than the few that a server without a limit gives at random."""
        while self._refusals[0] < now_s - _MEMORY_S:
            self._refusals.popleft()
        answers = sum(at_s >= now_s - _MEMORY_S for at_s in self._answers)
        return len(self._refusals) > _RANDOM_SHARE * answers

    def _set_rate(self) -> None:
        """After the pause: by then the answers to what was on its way are in."""
        self._to_be_set = False
        since_s = max(self._started_s, self._slowed_s - _MEMORY_S)
        seen = [at_s for at_s in self._answers if at_s >= since_s]
        if len(seen) >= _ENOUGH:
            took_s = max(_TELLING_S, seen[-1] - since_s)
            self._rate_per_s = min(self._rate_per_s, _DECREASE * len(seen) / took_s)
            self._searching = took_s == _TELLING_S
        else:
            self._rate_per_s = min(self._rate_per_s, _BLIND_PER_S) / 2
            self._searching = True
        self._rate_per_s = max(min(_LEAST_PER_S, self._limit_per_s), self._rate_per_s)
        self._tokens = min(self._tokens, self._capacity())

    def _wait_s(self) -> float:
        now_s = self._clock_s()
        self._refill(now_s)
        lacking = 1 - self._tokens
        until_token_s = lacking / self._rate_per_s if lacking > _ROUNDING else 0.0
        return max(self._resume_s - now_s, until_token_s)

    def _refill(self, now_s: float) -> None:
        """Tokens come in a pause too: what the server saved up meanwhile is used after it."""
        passed_s, self._counted_s = now_s - self._counted_s, now_s
        if self._to_be_set and now_s >= self._resume_s:
            self._set_rate()
        if math.isinf(self._rate_per_s):
            return
        if self._rate_per_s < self._limit_per_s and now_s >= self._resume_s:
            since_s = now_s - self._resume_s
            growth = _SEARCH_PER_S if self._searching else _INCREASE_PER_S if since_s < _CAUTION_S else _RECOVERY_PER_S
            self._rate_per_s = min(self._limit_per_s, self._rate_per_s * (1 + growth * min(passed_s, since_s)))
        self._tokens = min(self._capacity(), self._tokens + passed_s * self._rate_per_s)

    def _capacity(self) -> float:
        return max(1.0, self._rate_per_s * _BURST_S)

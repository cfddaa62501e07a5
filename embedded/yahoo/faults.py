"""What can go wrong at Yahoo, drawn so that a run can be repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from app.errors import SettingsError

FaultKind = Literal["429", "500", "drop", "truncated", "malformed", "short", "hang"]
"""429 and 500: the status. drop: the connection closes without an answer. truncated: it closes in the
middle of the body. malformed: status 200 and half of the JSON. short: status 200 and valid JSON that
lacks the last third of the bars. hang: no answer until the client gives up."""

KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)


@dataclass(frozen=True)
class Faults:
    """How the server misbehaves; the default is a server that is always well. SettingsError on a wrong value."""

    latency_ms: float = 0.0
    """Time before each answer."""
    share: float = 0.0
    """Share of chart requests that fail, 0 to 1."""
    kinds: tuple[FaultKind, ...] = KINDS
    """The ways in which they fail, equally likely."""
    seed: int = 0
    """Of the draws."""
    retry_after_s: int = 1
    """Least Retry-After of a 429, whole seconds."""
    rate_per_s: float = 0.0
    """Chart requests a second that are answered, in bursts of up to one second's worth; 0 is no limit."""
    storm: bool = False
    """Every chart request is answered by 429."""

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if not 0 <= self.share <= 1:
            raise SettingsError(f"share of faults {self.share} is not within 0..1")
        if min(self.latency_ms, self.rate_per_s, self.retry_after_s) < 0:
            raise SettingsError("latency_ms, rate_per_s and retry_after_s must not be negative")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise SettingsError(f"unknown kinds of fault {unknown}: allowed are {', '.join(KINDS)}")

    def draw(self, symbol: str, span: str, attempt: int) -> FaultKind | None:
        """The fault of the `attempt`-th request (from 1) for a symbol's span of time; None for most.

        A function of its arguments and the seed alone: a run repeats whatever the order of its requests,
        and a retry has a chance of its own.
        """
        digest = hashlib.blake2b(f"{self.seed}|{symbol}|{span}|{attempt}".encode(), digest_size=16).digest()
        if int.from_bytes(digest[:8]) >= self.share * 2**64:
            return None
        return self.kinds[int.from_bytes(digest[8:]) % len(self.kinds)]


NO_FAULTS: Final = Faults()


class TokenBucket:
    """Lets through `rate_per_s` requests a second on average and up to one second's worth at once."""

    def __init__(self, rate_per_s: float, clock_s: Callable[[], float]) -> None:
        """`clock_s` is a monotonic clock in seconds; a rate of 0 is no limit."""
        self._rate_per_s = rate_per_s
        self._clock_s = clock_s
        self._capacity = max(1.0, rate_per_s)
        self._tokens = self._capacity
        self._filled_s = clock_s()

    def wait_s(self) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        if self._rate_per_s == 0:
            return 0.0
        now_s = self._clock_s()
        self._tokens = min(self._capacity, self._tokens + (now_s - self._filled_s) * self._rate_per_s)
        self._filled_s = now_s
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate_per_s
        self._tokens -= 1
        return 0.0

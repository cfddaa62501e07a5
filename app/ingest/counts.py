"""What it took to get one ticker's bars."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class FetchCount:
    """Counts of one ticker.

    requests: sent, all included; retries: those after a failure, `rate_limited` of them after a 429; verified:
    those that asked again for what was answered, because the answer was doubtful. Not counted is what curl repeats by
    itself, as HTTP has it: a request on a kept connection that the server had closed in the meantime.
    """

    requests: int = 0
    retries: int = 0
    rate_limited: int = 0
    verified: int = 0

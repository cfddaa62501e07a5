"""When AWS Batch tries a failed job again.

https://docs.aws.amazon.com/batch/latest/userguide/job_retries.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ended:
    """How an attempt ended. exit_code: None for a container that never started; reason: the container's."""

    exit_code: int | None
    reason: str = ""
    status_reason: str = "Essential container in task exited"


@dataclass(frozen=True)
class RetryStrategy:
    """attempts: at most; conditions: of `evaluateOnExit`, the first that an end meets decides."""

    attempts: int = 1
    conditions: tuple[Mapping[str, str], ...] = ()

    @classmethod
    def read(cls, strategy: Mapping[str, Any] | None) -> RetryStrategy:
        """As the API has it; one attempt where nothing is said."""
        said = strategy or {}
        return cls(int(said.get("attempts") or 1), tuple(said.get("evaluateOnExit") or ()))

    def again(self, attempts: int, ended: Ended) -> bool:
        """Whether to try again after so many attempts, the last of which failed like this."""
        if attempts >= self.attempts:
            return False
        actions = (str(condition["action"]) for condition in self.conditions if _meets(ended, condition))
        return next(actions, "RETRY").upper() == "RETRY"

    def describe(self) -> dict[str, Any]:
        """As DescribeJobs shows it."""
        conditions = [{**condition, "action": str(condition["action"]).upper()} for condition in self.conditions]
        return {"attempts": self.attempts, "evaluateOnExit": conditions}


def _meets(ended: Ended, condition: Mapping[str, str]) -> bool:
    """Whether all that the condition names fits."""
    found = {
        "onExitCode": "" if ended.exit_code is None else str(ended.exit_code),
        "onReason": ended.reason,
        "onStatusReason": ended.status_reason,
    }
    return all(matches(value, condition[name]) for name, value in found.items() if name in condition)


def matches(value: str, pattern: str) -> bool:
    """Batch's patterns: the whole text, or its beginning where the pattern ends with an asterisk."""
    return value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern

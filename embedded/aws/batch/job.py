"""AWS Batch jobs: how far they are, and what DescribeJobs and ListJobs say of them."""

from __future__ import annotations

import itertools
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embedded.aws.account import ACCOUNT, PARTITION, REGION
from embedded.aws.batch.order import Order
from embedded.aws.batch.retry import Ended

SUBMITTED = "SUBMITTED"
PENDING = "PENDING"
RUNNABLE = "RUNNABLE"
STARTING = "STARTING"
RUNNING = "RUNNING"
SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"
STATUSES = (SUBMITTED, PENDING, RUNNABLE, STARTING, RUNNING, SUCCEEDED, FAILED)

_LONGEST_REASON = 255
_SUMMARY = (
    *("jobId", "jobName", "jobDefinition", "jobArn", "status", "statusReason"),
    *("createdAt", "startedAt", "stoppedAt", "isCancelled", "isTerminated"),
)
"""What an entry of ListJobs has as DescribeJobs has it."""
_numbers = itertools.count()


def now_ms() -> int:
    """The machine's time, in milliseconds as Batch's API has it."""
    return int(time.time() * 1000)


@dataclass
class Attempt:
    """One container of a job. ended: None while it runs; log_stream: empty before there is one."""

    order: Order
    number: int
    task_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    log_stream: str = ""
    started_ms: int = 0
    stopped_ms: int = 0
    ended: Ended | None = None

    def describe(self) -> dict[str, Any]:
        """An entry of DescribeJobs' attempts."""
        assert self.ended is not None  # noqa: S101 - who runs jobs shows ended attempts alone
        times = {"startedAt": self.started_ms, "stoppedAt": self.stopped_ms}
        return {
            "container": {"networkInterfaces": [], **self.container()},
            **{name: at_ms for name, at_ms in times.items() if at_ms},
            "statusReason": self.ended.status_reason[:_LONGEST_REASON],
        }

    def container(self) -> dict[str, Any]:
        """What is known of the container."""
        place = f"arn:{PARTITION}:ecs:{REGION}:{ACCOUNT}:task"
        said: dict[str, Any] = {"taskArn": f"{place}/{self.order.cluster}/{self.task_id}"}
        if self.log_stream:
            said["logStreamName"] = self.log_stream
        return said | self.exit()

    def exit(self) -> dict[str, Any]:
        """Exit code and reason, as far as there are any."""
        said: dict[str, Any] = {}
        if self.ended is not None and self.ended.exit_code is not None:
            said["exitCode"] = self.ended.exit_code
        if self.ended is not None and self.ended.reason:
            said["reason"] = self.ended.reason[:_LONGEST_REASON]
        return said


class Job:
    """A job, the parent of an array or, with a parent and an index, one of its children.

    blockers: ids of the jobs that it still waits for; ending: why it is being ended before its time, empty if it is
    not. Data alone: the fleet changes it, and holds its lock while anybody looks.
    """

    def __init__(
        self, order: Order, arn_prefix: str, *, size: int = 0, parent: Job | None = None, index: int = 0
    ) -> None:
        self.number = next(_numbers)
        self.order = order
        self.parent = parent
        self.index = index
        self.job_id: str = f"{parent.job_id}:{index}" if parent else str(uuid.uuid4())
        self.arn = f"{arn_prefix}{self.job_id}"
        self.children = [Job(order, arn_prefix, parent=self, index=number) for number in range(size)]
        self.unended_children = size
        self.blockers: set[str] = set()
        self.attempts: list[Attempt] = []
        self.status = SUBMITTED
        self.status_reason = ""
        self.ending = ""
        self.cancelled = False
        self.terminated = False
        self.created_ms = now_ms()
        self.stopped_ms = 0

    @property
    def name(self) -> str:
        """What it was named as it was submitted."""
        return self.order.name

    @property
    def definition_arn(self) -> str:
        """ARN of its definition."""
        return str(self.order.definition.arn)

    @property
    def share_identifier(self) -> str:
        """Whose share of the queue it takes."""
        return self.order.share_identifier

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.status in (SUCCEEDED, FAILED)

    @property
    def started_ms(self) -> int:
        """When its last attempt, or its first child, began to run; 0 when none has."""
        if self.children:
            return min((child.started_ms for child in self.children if child.started_ms), default=0)
        return self.attempts[-1].started_ms if self.attempts else 0

    def end(self, status: str, reason: str) -> None:
        """Say that it has ended."""
        self.status, self.status_reason, self.stopped_ms = status, reason, now_ms()
        if self.parent is not None:
            self.parent.unended_children -= 1

    def children_by_status(self) -> dict[str, int]:
        """How many children have which status."""
        counted = Counter(child.status for child in self.children)
        return {status: counted[status] for status in STATUSES}

    def summary(self) -> dict[str, Any]:
        """An entry of ListJobs."""
        said = {
            "jobId": self.job_id,
            "jobName": self.order.name,
            "jobDefinition": self.order.definition.arn,
            **self._progress(),
        }
        if self.attempts:
            said["container"] = self.attempts[-1].exit()
        if self.children or self.parent:
            said["arrayProperties"] = {"index": self.index} if self.parent else {"size": len(self.children)}
        return said

    def describe(self) -> dict[str, Any]:
        """An entry of DescribeJobs."""
        return {
            "jobId": self.job_id,
            **self.order.describe(),
            **self._progress(),
            "container": {
                **self.order.container,
                "networkInterfaces": [],
                **(self.attempts[-1].container() if self.attempts else {}),
            },
            "attempts": [attempt.describe() for attempt in self.attempts if attempt.ended],
            **self._array(),
        }

    def _progress(self) -> dict[str, Any]:
        times = {"startedAt": self.started_ms, "stoppedAt": self.stopped_ms}
        return {
            "jobArn": self.arn,
            "status": self.status,
            "createdAt": self.created_ms,
            "isCancelled": self.cancelled,
            "isTerminated": self.terminated,
            **{name: at_ms for name, at_ms in times.items() if at_ms},
            **({"statusReason": self.status_reason[:_LONGEST_REASON]} if self.status_reason else {}),
        }

    def _array(self) -> dict[str, Any]:
        if self.parent is not None:
            return {"arrayProperties": {"statusSummary": {}, "index": self.index}}
        if self.children:
            return {"arrayProperties": {"statusSummary": self.children_by_status(), "size": len(self.children)}}
        return {}


class PastJob:
    """A job of an earlier life of the embedded AWS: it can be listed and described, and does nothing.

    number: its place among all jobs, before those of this life.
    """

    ended = True

    def __init__(self, described: Mapping[str, Any]) -> None:
        self._described = described
        self.job_id = str(described["jobId"])
        self.arn = str(described["jobArn"])
        self.name = str(described["jobName"])
        self.status = str(described["status"])
        self.created_ms = int(described["createdAt"])
        self.definition_arn = str(described["jobDefinition"])
        self.share_identifier = str(described.get("shareIdentifier", ""))
        self.index = int(described.get("arrayProperties", {}).get("index", 0))
        self.number = 0
        self.parent: PastJob | None = None
        self.children: list[PastJob] = []

    @property
    def queue(self) -> str:
        """ARN of the queue that it was submitted to."""
        return str(self._described["jobQueue"])

    def summary(self) -> dict[str, Any]:
        """An entry of ListJobs."""
        said = {name: self._described[name] for name in _SUMMARY if name in self._described}
        exits = {name: value for name, value in self._described["container"].items() if name in ("exitCode", "reason")}
        array = self._described.get("arrayProperties", {})
        places = {name: array[name] for name in ("index", "size") if name in array}
        return {
            **said,
            **({"container": exits} if self._described["attempts"] else {}),
            **({"arrayProperties": places} if places else {}),
        }

    def describe(self) -> dict[str, Any]:
        """As it was described."""
        return dict(self._described)


def put_back(backend: Any, jobs: list[PastJob]) -> None:
    """Let a backend know jobs of an earlier life: by their ids, in their queues and in their arrays."""
    by_id = {job.job_id: job for job in jobs}
    queues = {queue.arn: queue for queue in backend._job_queues.values()}
    for number, job in enumerate(sorted(jobs, key=lambda job: job.created_ms), start=-len(jobs)):
        job.number = number
        parent_id, is_child, _ = job.job_id.partition(":")
        if is_child:
            job.parent = by_id.get(parent_id)
            if job.parent is not None:
                job.parent.children.append(job)
        elif job.queue in queues:
            queues[job.queue].jobs.append(job)
    backend._jobs |= by_id

"""A training job's log: whole lines of each rank, the metrics that are read from them, why the job failed."""

from __future__ import annotations

import contextlib
import math
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from embedded.aws.account import Credentials, client
from embedded.aws.logs import LogStream

_TAG = re.compile(r"(\[\d+,\d+\]<std(?:out|err)>:)")
"""What mpirun puts before each piece of a rank's output."""
_NAMESPACE: Final = "/aws/sagemaker/TrainingJobs"
_PUBLISH_S: Final = 1.0
_VALUES: Final = 500
"""Metrics of a request: PutMetricData takes 1,000."""
_KILLED = re.compile(r"noticed that process rank .* exited on signal")
_FIRST_TO_FAIL = re.compile(r"Process name: \[\[\d+,\d+\],(\d+)\]")


class RankLines:
    """Puts lines together again: mpirun tags each piece that a rank writes, and ranks write at the same time."""

    def __init__(self) -> None:
        self._begun: dict[str, str] = {}

    def feed(self, line: str) -> str:
        """Take a line of mpirun's; returns the line that ends with it, tagged as the rank's."""
        untagged, *pieces = _TAG.split(line)
        if not pieces or untagged:
            return line
        tags, texts = pieces[::2], pieces[1::2]
        for tag, text in zip(tags, texts, strict=True):
            self._begun[tag] = self._begun.get(tag, "") + text
        return tags[-1] + self._begun.pop(tags[-1])

    def rest(self) -> list[str]:
        """Lines that nobody ended."""
        begun, self._begun = self._begun, {}
        return [tag + text for tag, text in begun.items()]


class Metrics:
    """Values that a job's metric definitions find in its log. Publishes them where SageMaker does.

    A role that may not publish loses them, as on AWS.
    """

    def __init__(
        self, definitions: Iterable[Mapping[str, str]], job: str, endpoint: str, credentials: Credentials
    ) -> None:
        self._patterns = {one["Name"]: re.compile(one["Regex"]) for one in definitions}
        self._dimensions = [{"Name": "TrainingJobName", "Value": job}]
        self._last: dict[str, tuple[datetime, float]] = {}
        self._waiting: list[tuple[str, datetime, float]] = []
        self._lock = threading.Lock()
        self._published = -math.inf
        self._client: Any = client("cloudwatch", endpoint, credentials)

    def read(self, line: str) -> None:
        """Look for values in a line."""
        now = datetime.now(UTC)
        for name, pattern in self._patterns.items():
            found = pattern.search(line)
            if not found or not pattern.groups:
                continue
            with contextlib.suppress(ValueError, TypeError):
                value = float(found[1])
                if math.isfinite(value):
                    with self._lock:
                        self._last[name] = now, value
                        self._waiting.append((name, now, value))

    def publish(self, *, at_once: bool = False) -> None:
        """Send to CloudWatch what was found since the last time; not every time that this is called."""
        if not at_once and time.monotonic() < self._published + _PUBLISH_S:
            return
        self._published = time.monotonic()
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), _VALUES):
            data = [
                {"MetricName": name, "Dimensions": self._dimensions, "Timestamp": at, "Value": value}
                for name, at, value in waiting[start : start + _VALUES]
            ]
            with contextlib.suppress(ClientError, BotoCoreError):
                self._client.put_metric_data(Namespace=_NAMESPACE, MetricData=data)

    def final(self) -> list[dict[str, Any]]:
        """FinalMetricDataList: the last value of each."""
        return [{"MetricName": name, "Value": value, "Timestamp": at} for name, (at, value) in self._last.items()]


class JobLog(LogStream):
    """The log stream of one host of a training job."""

    def __init__(self, endpoint: str, credentials: Credentials, stream: str, metrics: Metrics) -> None:
        super().__init__(endpoint, credentials, "/aws/sagemaker/TrainingJobs", stream, create_group=True)
        self._metrics = metrics
        self._lines = RankLines()
        self._both_outputs = threading.Lock()
        self._tail: deque[str] = deque(maxlen=200)

    def line(self, text: str) -> None:
        """Append a line that a process wrote."""
        with self._both_outputs:
            whole = self._lines.feed(text)
            self._metrics.read(whole)
            self._tail.append(whole)
        super().line(whole)

    def close(self) -> None:
        """Send what is left."""
        with self._both_outputs:
            rest = self._lines.rest()
        for text in rest:
            super().line(text)
        super().close()

    def cause(self) -> str:
        """What mpirun and the ranks said last about a failure; empty without mpirun's word.

        A rank that was killed says nothing. Of ranks that failed, the first one knows: the others lost it.
        """
        with self._both_outputs:
            tail = list(self._tail)
        for text in tail:
            if _KILLED.search(text):
                return text.strip()
        first = next((found[1] for text in tail if (found := _FIRST_TO_FAIL.search(text))), None)
        if first is None:
            return ""
        tag = f",{first}]<stderr>:"
        said = [text.partition(tag)[2].strip() for text in tail if tag in text]
        return next((text for text in reversed(said) if text.strip(" -=*\t")), "")

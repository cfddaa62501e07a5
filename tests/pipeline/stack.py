"""What the tests of the deployed stack do with it: executions, and processes that are killed."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPConnection
from typing import Any

import psutil
import pyarrow as pa

from app import contract
from app.storage import Bucket
from app.tables import get_table
from embedded.execution import ENDED, Execution, read_execution
from embedded.local import Local
from embedded.watch import holds

FAST = {
    "ingest": {"days": 7},
    "dataset": {"validation_days": 1},
    "training": {"epochs": 1},
    "gate": {"min_skill": -1},
    "serving": {"speed": 100_000, "partitions": 1, "buckets": 1},
}
PATIENCE_S = 300.0
_SELDOM_S = 0.25
"""Between looks at what takes long: each costs the server time that its tasks would have."""


@dataclass(frozen=True)
class Stack:
    """The stack on this machine."""

    local: Local

    @cached_property
    def states(self) -> Any:
        """A client of Step Functions."""
        return self.local.connect("stepfunctions")

    def start(self, *phases: str, settings: Mapping[str, Mapping[str, Any]] | None = None, **more: Any) -> str:
        """Start an execution with fast settings; returns its ARN."""
        merged = {
            group: {**FAST.get(group, {}), **(settings or {}).get(group, {})} for group in {*FAST, *(settings or {})}
        }
        asked = {"settings": merged, **({"phases": list(phases)} if phases else {}), **more}
        started = self.states.start_execution(stateMachineArn=self.local.machine, input=json.dumps(asked))
        return str(started["executionArn"])

    def read(self, arn: str) -> Execution:
        return read_execution(self.states, arn)

    def wait(self, arn: str) -> Execution:
        """The execution as it ended, when nothing is held any more."""
        until(lambda: self.states.describe_execution(executionArn=arn)["status"] in ENDED, every_s=_SELDOM_S)
        until(lambda: not holds(self.local), every_s=_SELDOM_S)
        return self.read(arn)

    def run(self, *phases: str, **asked: Any) -> Execution:
        return self.wait(self.start(*phases, **asked))

    def wait_for_state(self, arn: str, name: str) -> None:
        until(lambda: any(state.name == name and state.attempts for state in self.read(arn).states))

    def tasks(self, *words: str) -> list[psutil.Process]:
        """Processes of tasks with all these words in their command line."""
        found = []
        for process in psutil.Process(self.local.aws_pid).children(recursive=True):
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if process.status() != psutil.STATUS_ZOMBIE and all(word in line for word in words):
                found.append(process)
        return found

    def kill(self, *words: str, environ: Mapping[str, str] | None = None) -> None:
        """SIGKILL the first process of a task that has these words, and these variables."""

        def find() -> psutil.Process | None:
            return next((task for task in self.tasks(*words) if _has(task, environ or {})), None)

        process: psutil.Process = until(find)
        process.send_signal(signal.SIGKILL)

    def fail(self, service: str, seconds: float) -> None:
        """Let a service answer 500 for a while."""
        connection = HTTPConnection(self.local.url.removeprefix("http://"), timeout=10)
        connection.request(
            "POST", "/_embedded/faults", json.dumps({"service": service, "status": 500, "seconds": seconds})
        )
        assert connection.getresponse().status == 200
        connection.close()

    def bucket(self, role: str) -> Bucket:
        return self.local.buckets()[role]

    def predictions(self, run_id: str) -> pa.Table:
        bucket = self.bucket("predictions")
        keys = [key for key in bucket.keys(contract.PREDICTIONS_PREFIX) if contract.predictions_run(key) == run_id]
        return pa.concat_tables([get_table(bucket, key) for key in keys])

    def ticks(self, run_id: str) -> int:
        return int(self.bucket("market").get_json(contract.feed_end_key(run_id))["ticks"])

    def assert_nothing_is_left(self) -> None:
        """No process of a task, no job, no cluster, no instance of the fleet."""
        assert holds(self.local) == []
        assert until(lambda: not self.tasks() or None, 10.0)


def until(found: Callable[[], Any], patience_s: float = PATIENCE_S, every_s: float = 0.05) -> Any:
    """What `found` answers as soon as that is something."""
    deadline = time.monotonic() + patience_s
    while not (answer := found()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(every_s)
    return answer


def _has(process: psutil.Process, wanted: Mapping[str, str]) -> bool:
    try:
        environ = process.environ()
    except psutil.Error:
        return False
    return all(environ.get(name) == value for name, value in wanted.items())

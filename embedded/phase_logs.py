"""Where the tasks of an execution write, asked from the services as a person in the console would."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from app import contract
from embedded.execution import Execution, StateRun
from embedded.phases import phase_of

_TRAINING_LOGS = "/aws/sagemaker/TrainingJobs"
_RANK = re.compile(r"^\[\d+,\d+\]<std(?:out|err)>:")
"""How mpirun tags a line with its rank."""
_LATE_S = 0.5
"""What a task says may reach its log a little after its state has ended."""
_STEP_FILES = ("stderr", "stdout")

Connect = Callable[[str], Any]
"""A client of the service of this name."""


@dataclass(frozen=True)
class Source:
    """A log stream, or an object that grows (group is then its bucket). label: whose it is.

    by_time: found by its time alone, so that only what was said while the execution was in the state is its own.
    """

    label: str
    group: str
    stream: str
    in_s3: bool = False
    by_time: bool = False


class PhaseLogs:
    """Reads what the tasks of one execution have said; each line once.

    Streams of Lambdas and metrics name no execution: of two that are in the same state at a time each has both's.
    """

    def __init__(self, connect: Connect) -> None:
        self._logs = connect("logs")
        self._batch = connect("batch")
        self._emr = connect("emr")
        self._s3 = connect("s3")
        self._functions = connect("lambda")
        self._tokens: dict[Source, str] = {}
        self._seen: dict[Source, int] = {}

    def new_lines(self, execution: Execution, phase: str | None = None) -> Iterator[tuple[str, str]]:
        """State and line, of the states of a phase (of all without one), since the last call."""
        for state in execution.states:
            if phase is None or phase_of(state.name) == phase:
                for source in self._sources(state):
                    for line in self._new(source, state):
                        yield source.label, _RANK.sub("", line)

    def _sources(self, state: StateRun) -> Iterator[Source]:
        try:
            if "JobId" in state.submitted:
                yield from self._job_sources(state)
            elif "TrainingJobArn" in state.submitted:
                job = state.submitted["TrainingJobArn"].rpartition("/")[2]
                for stream in self._streams(_TRAINING_LOGS, f"{job}/"):
                    yield Source(state.name, _TRAINING_LOGS, stream)
            elif "StepId" in state.submitted:
                yield from self._step_sources(state)
            elif state.resource == "lambda:invoke":
                yield from self._function_sources(state)
        except ClientError:  # not there yet
            return

    def _job_sources(self, state: StateRun) -> Iterator[Source]:
        job_id = state.submitted["JobId"]
        jobs = self._batch.describe_jobs(jobs=[job_id])["jobs"]  # none of a job that Batch has forgotten
        size = sum(job.get("arrayProperties", {}).get("size", 0) for job in jobs)
        if size:
            names = [f"{job_id}:{index}" for index in range(size)]
            pages = [names[start : start + 100] for start in range(0, size, 100)]  # DescribeJobs takes 100
            jobs = [child for page in pages for child in self._batch.describe_jobs(jobs=page)["jobs"]]
        for number, found in enumerate(jobs):
            container = found.get("container", {})
            group = container.get("logConfiguration", {}).get("options", {}).get("awslogs-group", "/aws/batch/job")
            attempts = [attempt.get("container", {}).get("logStreamName") for attempt in found.get("attempts", [])]
            for stream in dict.fromkeys(filter(None, [*attempts, container.get("logStreamName")])):
                yield Source(f"{state.name} {number}" if size else state.name, group, stream)

    def _step_sources(self, state: StateRun) -> Iterator[Source]:
        """The stream's metrics as they come, and the step's files, which EMR copies to S3 now and then."""
        words = state.parameters["Step"]["HadoopJarStep"]["Args"]
        mark = f"{contract.ENV_METRICS_LOG_GROUP}="
        for group in (word.removeprefix(mark) for word in words if word.startswith(mark)):
            for stream in self._streams(group, during=state):
                yield Source(state.name, group, stream, by_time=True)
        cluster_id = state.parameters["ClusterId"]
        place = urlsplit(self._emr.describe_cluster(ClusterId=cluster_id)["Cluster"]["LogUri"])
        folder = f"{place.path.strip('/')}/{cluster_id}/steps/{state.submitted['StepId']}"
        for name in _STEP_FILES:
            yield Source(state.name, place.netloc, f"{folder}/{name}.gz", in_s3=True)

    def _streams(self, group: str, prefix: str = "", during: StateRun | None = None) -> list[str]:
        asked = {"logStreamNamePrefix": prefix} if prefix else {}
        pages = self._logs.get_paginator("describe_log_streams").paginate(logGroupName=group, **asked)
        found = [stream for page in pages for stream in page["logStreams"]]
        return [
            stream["logStreamName"] for stream in found if during is None or _is_within(stream["creationTime"], during)
        ]

    def _function_sources(self, state: StateRun) -> Iterator[Source]:
        described = self._functions.get_function_configuration(FunctionName=state.parameters["FunctionName"])
        group = described.get("LoggingConfig", {}).get("LogGroup") or f"/aws/lambda/{described['FunctionName']}"
        for stream in self._streams(group, during=state):
            yield Source(state.name, group, stream, by_time=True)

    def _new(self, source: Source, state: StateRun) -> list[str]:
        if source.in_s3:
            return self._new_of_object(source)
        events = self._new_of_stream(source)
        return [e["message"] for e in events if not source.by_time or _is_within(e["timestamp"], state)]

    def _new_of_stream(self, source: Source) -> list[dict[str, Any]]:
        """Page by page from where the last call stopped: at the end the token stays as it is."""
        found: list[dict[str, Any]] = []
        try:
            while True:
                before = self._tokens.get(source)
                answer = self._logs.get_log_events(
                    logGroupName=source.group,
                    logStreamName=source.stream,
                    startFromHead=True,
                    **({"nextToken": before} if before else {}),
                )
                found += answer["events"]
                self._tokens[source] = answer["nextForwardToken"]
                if answer["nextForwardToken"] == before:
                    return found
        except ClientError:
            return found

    def _new_of_object(self, source: Source) -> list[str]:
        try:
            answer = self._s3.get_object(
                Bucket=source.group,
                Key=source.stream,
                **({"IfNoneMatch": self._tokens[source]} if source in self._tokens else {}),
            )
        except ClientError:  # not there yet, or as before
            return []
        self._tokens[source] = answer["ETag"]
        lines = gzip.decompress(answer["Body"].read()).decode(errors="replace").splitlines()
        seen, self._seen[source] = self._seen.get(source, 0), len(lines)
        return lines[seen:]


def _is_within(at_ms: int, state: StateRun) -> bool:
    """Whether it happened while the execution was in the state."""
    return int(state.entered.timestamp() * 1000) <= at_ms and (
        state.ended is None or at_ms <= (state.ended.timestamp() + _LATE_S) * 1000
    )


def readable(line: str) -> str:
    """A line for people: progress and metrics without their JSON."""
    said = parse(line)
    if said is None:
        return line
    if "phase" in said and "note" in said:
        return f"{said['done']}/{said['total']} {said['note']}"
    if "_aws" in said:
        return ", ".join(f"{name} {value:g}" for name, value in said.items() if isinstance(value, int | float))
    return line


def parse(line: str) -> dict[str, Any] | None:
    """The JSON object that a line is, if it is one."""
    if not line.startswith("{"):
        return None
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None

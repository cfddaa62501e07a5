"""The parts of Batch that need no server."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from embedded.aws.batch.fleet import Fleet
from embedded.aws.batch.job import Job
from embedded.aws.batch.order import Order, substitute
from embedded.aws.batch.retry import Ended, RetryStrategy
from embedded.aws.host import Host

EXITED = "Essential container in task exited"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(endpoint="http://127.0.0.1:1", folder=tmp_path / "tasks", environ={}, cores=1)
    (tmp_path / "Dockerfile").write_text('FROM debian\nENTRYPOINT ["/bin/sh", "-c"]\n')
    host.images.publish("shell", tmp_path / "Dockerfile", tmp_path)
    return host


def order(command: str, image: str = "shell") -> Order:
    container = {"image": image, "command": [command], "environment": [], "logConfiguration": {"logDriver": "none"}}
    definition = SimpleNamespace(
        name="definition",
        container_properties=container,
        parameters={},
        retry_strategy={},
        timeout={},
        propagate_tags=False,
    )
    queue = SimpleNamespace(name="queue", environments=[SimpleNamespace(name="environment", ecs_name="cluster")])
    return Order.read({"jobName": "job"}, queue, definition)


def ended(job: Job) -> Job:
    until = time.monotonic() + 20
    while not job.ended and time.monotonic() < until:
        time.sleep(0.02)
    return job


def test_a_job_waits_for_the_cores_of_other_services_but_not_for_ever(host: Host) -> None:
    fleet = Fleet(host, patience_s=0.5)
    job = Job(order("exit 0"), "arn:")
    began = time.monotonic()
    with host.cores.hold(1):
        fleet.submit(job, [])
        assert ended(job).status == "SUCCEEDED"
    assert time.monotonic() - began >= 0.5


def test_jobs_of_batch_wait_for_one_another_as_long_as_they_run(host: Host) -> None:
    fleet = Fleet(host, patience_s=0.1)
    first, second = Job(order("sleep 0.5"), "arn:"), Job(order("exit 0"), "arn:")
    fleet.submit(first, [])
    fleet.submit(second, [])
    ended(second)
    assert first.stopped_ms <= second.started_ms


def test_whatever_keeps_a_job_from_running_ends_it(host: Host) -> None:
    host.close()
    job = Job(order("exit 0"), "arn:")
    Fleet(host).submit(job, [])
    assert (ended(job).status, job.status_reason) == ("FAILED", "Task failed to start")
    assert job.attempts[-1].exit()["reason"] == "CannotStartContainerError: the embedded AWS is going down"


def test_a_long_chain_of_dependants_fails_with_its_first(host: Host) -> None:
    chain = Job(order("exit 1"), "arn:", size=5000)
    pairs = list(zip(chain.children[1:], chain.children, strict=False))
    Fleet(host).submit(chain, pairs)
    assert ended(chain).children_by_status()["FAILED"] == 5000


@pytest.mark.parametrize(
    ("conditions", "end", "again"),
    [
        ([], Ended(1), True),
        ([{"action": "exit", "onExitCode": "1"}], Ended(1), False),
        ([{"action": "EXIT", "onExitCode": "1"}], Ended(13), True),
        ([{"action": "EXIT", "onExitCode": "1*"}], Ended(13), False),
        ([{"action": "EXIT", "onReason": "*"}], Ended(1), False),
        ([{"action": "EXIT", "onStatusReason": "Essential*"}], Ended(1), False),
        ([{"action": "EXIT", "onStatusReason": EXITED, "onExitCode": "2"}], Ended(1), True),
        ([{"action": "RETRY", "onExitCode": "1"}, {"action": "EXIT", "onReason": "*"}], Ended(1), True),
        ([{"action": "EXIT", "onReason": "*"}, {"action": "RETRY", "onExitCode": "1"}], Ended(1), False),
    ],
)
def test_the_first_condition_that_is_met_decides_and_none_means_again(
    conditions: list[dict[str, Any]], end: Ended, again: bool
) -> None:
    strategy = RetryStrategy.read({"attempts": 2, "evaluateOnExit": conditions})
    assert strategy.again(1, end) is again
    assert not strategy.again(2, end)


def test_a_parameters_name_is_read_as_long_as_it_is() -> None:
    words = ["--in=Ref::input", "Ref::inputfile", "Ref::input-Ref::other"]
    assert substitute(words, {"input": "a", "inputfile": "b"}) == ["--in=a", "b", "a-Ref::other"]

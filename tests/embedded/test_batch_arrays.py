from __future__ import annotations

import os
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.embedded.batch_jobs import Jobs

DEPENDENCY_FAILED = "Dependent Job failed"


def children(jobs: Jobs, parent_id: str, size: int) -> list[dict[str, Any]]:
    return [jobs.describe(f"{parent_id}:{index}") for index in range(size)]


def test_each_child_of_an_array_knows_its_index_and_the_size(jobs: Jobs) -> None:
    job = jobs.run(
        "echo $AWS_BATCH_JOB_ID $AWS_BATCH_JOB_ARRAY_INDEX $AWS_BATCH_JOB_ARRAY_SIZE", arrayProperties={"size": 3}
    )
    job_id = job["jobId"]
    assert job["status"] == "SUCCEEDED"
    assert job["arrayProperties"]["size"] == 3
    assert {status: count for status, count in job["arrayProperties"]["statusSummary"].items() if count} == {
        "SUCCEEDED": 3
    }
    found = children(jobs, job_id, 3)
    assert [jobs.lines(child) for child in found] == [[f"{job_id}:{index} {index} 3"] for index in range(3)]
    assert [child["arrayProperties"]["index"] for child in found] == [0, 1, 2]
    assert job["startedAt"] == min(child["startedAt"] for child in found)


def test_an_array_is_pending_until_its_children_have_ended_and_failed_if_one_of_them_has(
    jobs: Jobs, tmp_path: Any
) -> None:
    go_on = tmp_path / "go-on"
    definition = jobs.define(f"[ $AWS_BATCH_JOB_ARRAY_INDEX = 0 ] && exit 4; until [ -e {go_on} ]; do sleep 0.05; done")
    job_id = jobs.submit(definition, arrayProperties={"size": 2})
    assert jobs.wait(f"{job_id}:0")["container"]["exitCode"] == 4
    jobs.wait(f"{job_id}:1", "RUNNING")
    parent = jobs.describe(job_id)
    summary = parent["arrayProperties"]["statusSummary"]
    assert (parent["status"], summary["FAILED"], summary["RUNNING"]) == ("PENDING", 1, 1)
    go_on.touch()
    parent = jobs.wait(job_id)
    assert (parent["status"], parent["statusReason"]) == ("FAILED", "Array Child Job failed")
    assert jobs.describe(f"{job_id}:1")["status"] == "SUCCEEDED"


def test_children_are_tried_again_each_for_itself(jobs: Jobs) -> None:
    command = "[ $AWS_BATCH_JOB_ARRAY_INDEX = 0 ] || [ $AWS_BATCH_JOB_ATTEMPT = 2 ]"
    job = jobs.run(command, arrayProperties={"size": 2}, retryStrategy={"attempts": 2})
    assert job["status"] == "SUCCEEDED"
    assert [len(child["attempts"]) for child in children(jobs, job["jobId"], 2)] == [1, 2]


def test_terminating_an_array_ends_its_children_running_or_not(jobs: Jobs) -> None:
    job_id = jobs.submit(jobs.define("echo $$; exec sleep 60"), arrayProperties={"size": 4})
    pid = int(jobs.wait_for_line(f"{job_id}:0"))
    jobs.batch.terminate_job(jobId=job_id, reason="enough")
    assert jobs.describe(f"{job_id}:3")["status"] == "FAILED"
    job = jobs.wait(job_id)
    assert (job["status"], job["statusReason"], job["isTerminated"]) == ("FAILED", "enough", True)
    assert {(child["status"], child["statusReason"]) for child in children(jobs, job_id, 4)} == {("FAILED", "enough")}
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("size", [1, 10_001])
def test_an_array_has_2_to_10000_children(jobs: Jobs, size: int) -> None:
    with pytest.raises(ClientError, match="must be between 2 and 10000"):
        jobs.submit(jobs.define("true"), arrayProperties={"size": size})


def test_a_job_waits_for_the_jobs_that_it_depends_on(jobs: Jobs, tmp_path: Any) -> None:
    go_on = tmp_path / "go-on"
    first = jobs.submit(jobs.define(f"until [ -e {go_on} ]; do sleep 0.05; done"))
    second = jobs.submit(jobs.define("true"), dependsOn=[{"jobId": first}])
    third = jobs.submit(
        jobs.define("true"), arrayProperties={"size": 2}, dependsOn=[{"jobId": first}, {"jobId": second}]
    )
    assert [jobs.describe(job_id)["status"] for job_id in (second, third, f"{third}:0")] == ["PENDING"] * 3
    go_on.touch()
    assert jobs.wait(third)["status"] == "SUCCEEDED"
    assert jobs.describe(second)["startedAt"] >= jobs.describe(first)["stoppedAt"]
    assert jobs.describe(f"{third}:0")["startedAt"] >= jobs.describe(second)["stoppedAt"]
    assert jobs.describe(second)["dependsOn"] == [{"jobId": first}]


def test_what_depends_on_a_job_that_fails_fails_too(jobs: Jobs) -> None:
    failing = jobs.submit(jobs.define("sleep 0.2; exit 1"))
    waiting = jobs.submit(jobs.define("true"), dependsOn=[{"jobId": failing}])
    array = jobs.submit(jobs.define("true"), arrayProperties={"size": 2}, dependsOn=[{"jobId": waiting}])
    for job_id in (waiting, array, f"{array}:1"):
        job = jobs.wait(job_id)
        assert (job["status"], job["statusReason"], job["attempts"]) == ("FAILED", DEPENDENCY_FAILED, [])
    late = jobs.describe(jobs.submit(jobs.define("true"), dependsOn=[{"jobId": failing}]))
    assert (late["status"], late["statusReason"]) == ("FAILED", DEPENDENCY_FAILED)


def test_sequential_children_run_one_after_the_other_until_one_fails(jobs: Jobs) -> None:
    sequential: dict[str, Any] = {"arrayProperties": {"size": 3}, "dependsOn": [{"type": "SEQUENTIAL"}]}
    job = jobs.run("[ $AWS_BATCH_JOB_ARRAY_INDEX != 1 ]", **sequential)
    first, second, third = children(jobs, job["jobId"], 3)
    assert first["stoppedAt"] <= second["startedAt"]
    assert [child["status"] for child in (first, second, third)] == ["SUCCEEDED", "FAILED", "FAILED"]
    assert (third["statusReason"], job["statusReason"]) == (DEPENDENCY_FAILED, "Array Child Job failed")


def test_n_to_n_children_wait_for_the_child_with_their_index(jobs: Jobs) -> None:
    first = jobs.submit(jobs.define("[ $AWS_BATCH_JOB_ARRAY_INDEX != 0 ]"), arrayProperties={"size": 3})
    depends = [{"jobId": first, "type": "N_TO_N"}]
    second = jobs.submit(jobs.define("true"), arrayProperties={"size": 3}, dependsOn=depends)
    assert jobs.wait(second)["status"] == "FAILED"
    assert [child["status"] for child in children(jobs, second, 3)] == ["FAILED", "SUCCEEDED", "SUCCEEDED"]
    assert jobs.describe(f"{second}:1")["startedAt"] >= jobs.describe(f"{first}:1")["stoppedAt"]
    with pytest.raises(ClientError, match="no array of 2"):
        jobs.submit(jobs.define("true"), arrayProperties={"size": 2}, dependsOn=depends)


def test_a_dependency_on_no_job_is_refused(jobs: Jobs) -> None:
    with pytest.raises(ClientError, match="no-such-job, which the job depends on, does not exist"):
        jobs.submit(jobs.define("true"), dependsOn=[{"jobId": "no-such-job"}])

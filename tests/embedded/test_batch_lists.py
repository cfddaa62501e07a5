from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.embedded.batch_jobs import Jobs


def names(answer: dict[str, Any]) -> list[str]:
    return [job["jobName"] for job in answer["jobSummaryList"]]


def named(jobs: Jobs, *values: str) -> list[dict[str, Any]]:
    return [{"name": "JOB_NAME", "values": list(values)}]


def test_a_name_filter_finds_jobs_in_every_state_the_latest_first(jobs: Jobs) -> None:
    running = jobs.submit(jobs.define("exec sleep 60"), "shown-running")
    failed = jobs.submit(jobs.define("exit 1"), "Shown-failed")
    array = jobs.submit(jobs.define("true"), "shown-array", arrayProperties={"size": 2})
    for job_id in (failed, array):
        jobs.wait(job_id)
    found = jobs.batch.list_jobs(jobQueue=jobs.queue, filters=named(jobs, "shown-*"))
    assert [job["jobId"] for job in found["jobSummaryList"]] == [array, failed, running]
    assert [job["status"] for job in found["jobSummaryList"]] == ["SUCCEEDED", "FAILED", "RUNNING"]
    assert found["jobSummaryList"][0]["arrayProperties"]["size"] == 2
    assert found["jobSummaryList"][1]["container"]["exitCode"] == 1
    assert names(jobs.batch.list_jobs(jobQueue=jobs.queue, filters=named(jobs, "shown-array"))) == ["shown-array"]
    assert names(jobs.batch.list_jobs(jobQueue=jobs.queue)) == ["shown-running"]
    assert "Shown-failed" in names(jobs.batch.list_jobs(jobQueue=jobs.queue, jobStatus="FAILED"))
    jobs.batch.terminate_job(jobId=running, reason="end of the test")
    jobs.wait(running)


def test_an_arrays_children_are_listed_by_the_arrays_id(jobs: Jobs) -> None:
    parent = jobs.run("true", arrayProperties={"size": 3})
    children = jobs.batch.list_jobs(arrayJobId=parent["jobId"], jobStatus="SUCCEEDED")["jobSummaryList"]
    assert [child["jobId"] for child in children] == [f"{parent['jobId']}:{index}" for index in range(3)]
    assert [child["arrayProperties"]["index"] for child in children] == [0, 1, 2]


def test_pages_hold_each_job_once_though_jobs_come_meanwhile(jobs: Jobs) -> None:
    definition = jobs.define("true")
    ids = [jobs.submit(definition, f"paged-{number}") for number in range(5)]
    pages = jobs.batch.get_paginator("list_jobs").paginate(
        jobQueue=jobs.queue, filters=named(jobs, "paged-*"), PaginationConfig={"PageSize": 2}
    )
    found = []
    for number, page in enumerate(pages):
        found += [job["jobId"] for job in page["jobSummaryList"]]
        jobs.submit(definition, f"paged-late-{number}")
    assert found == ids[::-1]


def test_other_filters_are_those_of_the_api(jobs: Jobs) -> None:
    job = jobs.run("true", shareIdentifier="share")
    definition = job["jobDefinition"].rpartition("/")[2].partition(":")[0]
    for name, value in {
        "JOB_DEFINITION": f"{definition}*",
        "SHARE_IDENTIFIER": "share",
        "AFTER_CREATED_AT": str(job["createdAt"] - 1),
    }.items():
        found = jobs.batch.list_jobs(jobQueue=jobs.queue, filters=[{"name": name, "values": [value]}])
        assert job["jobId"] in [entry["jobId"] for entry in found["jobSummaryList"]], name
    before = [{"name": "BEFORE_CREATED_AT", "values": [str(job["createdAt"])]}]
    found = jobs.batch.list_jobs(jobQueue=jobs.queue, filters=before)
    assert job["jobId"] not in [entry["jobId"] for entry in found["jobSummaryList"]]


def test_jobs_are_described_by_their_ids_and_unknown_ids_are_left_out(jobs: Jobs) -> None:
    job = jobs.run("true")
    found = jobs.batch.describe_jobs(jobs=["no-such-job", job["jobArn"]])["jobs"]
    assert [entry["jobId"] for entry in found] == [job["jobId"]]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"jobQueue": "no-queue"}, "no-queue does not exist"),
        ({"jobDefinition": "no-definition"}, "no-definition does not exist"),
        ({"jobName": "a name"}, "Job name should match valid pattern"),
    ],
)
def test_a_job_that_cannot_be_is_refused(jobs: Jobs, request_: dict[str, str], message: str) -> None:
    asked = {"jobName": "job", "jobQueue": jobs.queue, "jobDefinition": jobs.define("true")}
    with pytest.raises(ClientError, match=message):
        jobs.batch.submit_job(**asked | request_)

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from embedded.aws.account import Credentials, client
from tests.embedded.batch_jobs import IMAGES, MISSING, SCRIPT, Jobs
from tests.embedded.conftest import Serve

EXITED = "Essential container in task exited"


def test_a_job_that_exits_with_0_has_succeeded(jobs: Jobs) -> None:
    job = jobs.run("exit 0")
    assert (job["status"], job["statusReason"], job["container"]["exitCode"]) == ("SUCCEEDED", EXITED, 0)
    assert job["createdAt"] <= job["startedAt"] <= job["stoppedAt"]
    assert job["container"]["taskArn"].startswith("arn:aws:ecs:us-east-1:123456789012:task/")
    assert (job["isCancelled"], job["isTerminated"], job["retryStrategy"]["attempts"]) == (False, False, 1)


def test_an_exit_code_is_shown_in_the_job_and_in_its_attempt(jobs: Jobs) -> None:
    job = jobs.run("exit 3")
    (attempt,) = job["attempts"]
    assert (job["status"], job["statusReason"], job["container"]["exitCode"]) == ("FAILED", EXITED, 3)
    assert (attempt["statusReason"], attempt["container"]["exitCode"]) == (EXITED, 3)
    assert attempt["container"]["logStreamName"] == job["container"]["logStreamName"]
    assert attempt["startedAt"] <= attempt["stoppedAt"]


def test_the_environment_is_the_images_then_the_definitions_then_the_calls(jobs: Jobs) -> None:
    definition = jobs.define(
        "echo $FIRST $SECOND $THIRD",
        environment=[{"name": "SECOND", "value": "definition"}, {"name": "THIRD", "value": "definition"}],
    )
    overrides = {"environment": [{"name": "THIRD", "value": "call"}]}
    job = jobs.wait(jobs.submit(definition, containerOverrides=overrides))
    assert jobs.lines(job) == ["image definition call"]
    assert {pair["name"]: pair["value"] for pair in job["container"]["environment"]} == {
        "SECOND": "definition",
        "THIRD": "call",
    }


def test_batch_tells_a_job_about_itself(jobs: Jobs) -> None:
    job = jobs.run("echo $AWS_BATCH_JQ_NAME $AWS_BATCH_CE_NAME; env | grep AWS_BATCH_JOB | sort")
    assert jobs.lines(job) == [
        "queue environment",
        "AWS_BATCH_JOB_ATTEMPT=1",
        f"AWS_BATCH_JOB_ID={job['jobId']}",
    ]


def test_the_calls_command_comes_before_the_definitions_and_that_before_the_images(jobs: Jobs) -> None:
    override = {"command": ["echo the call"]}
    ids = [
        jobs.submit(jobs.define()),
        jobs.submit(jobs.define("echo the definition")),
        jobs.submit(jobs.define("echo the definition"), containerOverrides=override),
    ]
    assert [jobs.lines(jobs.wait(job_id)) for job_id in ids] == [["the CMD"], ["the definition"], ["the call"]]


def test_parameters_stand_where_the_command_refers_to_them(jobs: Jobs) -> None:
    definition = jobs.define(
        "echo Ref::day Ref::days/Ref::kind Ref::unknown", more={"parameters": {"day": "monday", "days": "5"}}
    )
    job = jobs.wait(jobs.submit(definition, parameters={"days": "7", "kind": "bars"}))
    assert jobs.lines(job) == ["monday 7/bars Ref::unknown"]
    assert job["parameters"] == {"day": "monday", "days": "7", "kind": "bars"}


def test_a_file_that_the_image_copies_runs_from_where_it_was_copied(jobs: Jobs) -> None:
    assert jobs.lines(jobs.wait(jobs.submit(jobs.define("one", "two", image=SCRIPT)))) == ["copied one two"]


def test_a_job_has_its_roles_temporary_credentials_and_one_without_a_role_has_none(jobs: Jobs) -> None:
    show = 'echo "${AWS_ACCESS_KEY_ID:-none}"; echo "$AWS_SECRET_ACCESS_KEY"; echo "$AWS_SESSION_TOKEN"'
    with_role = jobs.submit(jobs.define(show, jobRoleArn=jobs.role("job-role")))
    without = jobs.submit(jobs.define(show))
    credentials = Credentials(*jobs.lines(jobs.wait(with_role)))
    caller = client("sts", jobs.endpoint, credentials).get_caller_identity()["Arn"]
    assert caller.startswith("arn:aws:sts::123456789012:assumed-role/job-role/")
    assert jobs.lines(jobs.wait(without)) == ["none"]


def test_a_job_works_in_a_folder_of_its_own_which_is_gone_afterwards(jobs: Jobs) -> None:
    (folder,) = jobs.lines(jobs.run("touch made; pwd"))
    assert not os.path.exists(folder)


def test_both_outputs_go_to_the_group_and_the_stream_that_the_definition_names(jobs: Jobs) -> None:
    client("logs", jobs.endpoint).create_log_group(logGroupName="shards")
    options = {"awslogs-group": "shards", "awslogs-stream-prefix": "shard", "awslogs-region": "us-east-1"}
    definition = jobs.define(
        "echo out; echo error >&2",
        logConfiguration={"logDriver": "awslogs", "options": options},
        executionRoleArn=jobs.role("execution-role"),
    )
    job = jobs.wait(jobs.submit(definition))
    task_id = job["container"]["taskArn"].rpartition("/")[2]
    assert job["container"]["logStreamName"] == f"shard/default/{task_id}"
    assert sorted(jobs.lines(job, "shards")) == ["error", "out"]


def test_a_definition_without_log_options_logs_to_batchs_own_group(jobs: Jobs) -> None:
    job = jobs.run("echo said")
    assert job["container"]["logStreamName"].startswith(f"{job['jobDefinition'].split('/')[1].split(':')[0]}/default/")
    assert jobs.lines(job, "/aws/batch/job") == ["said"]


@pytest.mark.parametrize(
    ("container", "reason"),
    [
        ({"image": "registry/unknown:1"}, "CannotPullContainerError: image registry/unknown:1 is none"),
        ({"image": MISSING}, "CannotStartContainerError: "),
        (
            {"logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "nowhere"}}},
            "CannotStartContainerError: Error response from daemon: failed to initialize logging driver",
        ),
    ],
)
def test_a_container_that_cannot_start_fails_its_job(jobs: Jobs, container: dict[str, Any], reason: str) -> None:
    job = jobs.wait(jobs.submit(jobs.define("true", **container)))
    assert (job["status"], job["statusReason"]) == ("FAILED", "Task failed to start")
    assert job["container"]["reason"].startswith(reason)
    assert "exitCode" not in job["container"]
    assert job["attempts"][0]["container"]["reason"] == job["container"]["reason"]


def test_each_attempt_of_a_job_has_its_number_and_a_stream_of_its_own(jobs: Jobs) -> None:
    job = jobs.run("echo $AWS_BATCH_JOB_ATTEMPT; [ $AWS_BATCH_JOB_ATTEMPT = 2 ]", retryStrategy={"attempts": 3})
    assert job["status"] == "SUCCEEDED"
    assert [attempt["container"]["exitCode"] for attempt in job["attempts"]] == [1, 0]
    assert [jobs.lines(attempt) for attempt in job["attempts"]] == [["1"], ["2"]]


def test_the_conditions_of_the_retry_strategy_decide(jobs: Jobs) -> None:
    conditions = [
        {"action": "RETRY", "onReason": "CannotPullContainerError:*"},
        {"action": "RETRY", "onExitCode": "5"},
        {"action": "EXIT", "onReason": "*"},
    ]
    strategy = {"retryStrategy": {"attempts": 2, "evaluateOnExit": conditions}}
    ids = {
        "exit 5": jobs.submit(jobs.define("exit 5", more=strategy)),
        "exit 6": jobs.submit(jobs.define("exit 6", more=strategy)),
        "no image": jobs.submit(jobs.define("true", image="registry/unknown:1", more=strategy)),
    }
    attempts = {name: len(jobs.wait(job_id)["attempts"]) for name, job_id in ids.items()}
    assert attempts == {"exit 5": 2, "exit 6": 1, "no image": 2}


def test_an_attempt_that_lasts_too_long_is_ended_and_not_tried_again(jobs: Jobs) -> None:
    retries = {"retryStrategy": {"attempts": 3}, "timeout": {"attemptDurationSeconds": 100}}
    job = jobs.run("sleep 60", more=retries, timeout={"attemptDurationSeconds": 1})
    assert (job["status"], job["statusReason"]) == ("FAILED", "Job attempt duration exceeded timeout")
    assert (len(job["attempts"]), job["container"]["exitCode"]) == (1, 143)
    assert job["timeout"] == {"attemptDurationSeconds": 1}


@pytest.mark.parametrize(("action", "attempts"), [("EXIT", 1), ("RETRY", 2)])
def test_a_job_killed_from_outside_is_tried_again_if_its_strategy_says_so(
    jobs: Jobs, action: str, attempts: int
) -> None:
    conditions = [{"action": action, "onExitCode": "137"}]
    definition = jobs.define(
        "[ $AWS_BATCH_JOB_ATTEMPT = 2 ] || { echo $$; exec sleep 60; }",
        more={"retryStrategy": {"attempts": 2, "evaluateOnExit": conditions}},
    )
    job_id = jobs.submit(definition)
    os.kill(int(jobs.wait_for_line(job_id)), signal.SIGKILL)
    job = jobs.wait(job_id)
    assert len(job["attempts"]) == attempts
    assert (job["attempts"][0]["container"]["exitCode"], job["attempts"][0]["statusReason"]) == (137, EXITED)
    assert "reason" not in job["attempts"][0]["container"]


def test_a_terminated_job_ends_with_its_process_and_the_given_reason(jobs: Jobs) -> None:
    job_id = jobs.submit(jobs.define("echo $$; sleep 60"), retryStrategy={"attempts": 5})
    pid = int(jobs.wait_for_line(job_id))
    jobs.batch.terminate_job(jobId=job_id, reason="enough")
    job = jobs.wait(job_id)
    assert (job["status"], job["statusReason"], job["isTerminated"]) == ("FAILED", "enough", True)
    assert (len(job["attempts"]), job["container"]["exitCode"]) == (1, 143)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    jobs.batch.terminate_job(jobId=job_id, reason="once more")
    assert jobs.describe(job_id)["statusReason"] == "enough"


def test_cancelling_ends_what_waits_and_lets_run_what_runs(jobs: Jobs) -> None:
    definition = jobs.define("sleep 60")
    running = jobs.submit(definition)
    waiting = jobs.submit(definition, dependsOn=[{"jobId": running}])
    jobs.wait(running, "RUNNING")
    for job_id in (running, waiting):
        jobs.batch.cancel_job(jobId=job_id, reason="not needed")
    cancelled = jobs.describe(waiting)
    assert (cancelled["status"], cancelled["statusReason"], cancelled["isCancelled"]) == ("FAILED", "not needed", True)
    assert "startedAt" not in cancelled
    assert (jobs.describe(running)["status"], jobs.describe(running)["isCancelled"]) == ("RUNNING", False)
    jobs.batch.terminate_job(jobId=running, reason="end of the test")
    jobs.wait(running)


def test_as_many_jobs_run_as_there_are_cores_and_the_others_are_runnable(jobs: Jobs) -> None:
    definition = jobs.define("sleep 60")
    ids = [jobs.submit(definition) for _ in range(4)]
    for job_id in ids[:2]:
        jobs.wait(job_id, "RUNNING")
    assert [jobs.describe(job_id)["status"] for job_id in ids[2:]] == ["RUNNABLE", "RUNNABLE"]
    jobs.batch.terminate_job(jobId=ids[3], reason="before it ran")
    assert jobs.describe(ids[3])["status"] == "FAILED"
    jobs.batch.terminate_job(jobId=ids[0], reason="room for the third")
    jobs.wait(ids[2], "RUNNING")
    for job_id in ids[1:3]:
        jobs.batch.terminate_job(jobId=job_id, reason="end of the test")
        jobs.wait(job_id)


def test_a_reset_of_the_server_ends_its_jobs(serve: Serve) -> None:
    jobs = Jobs(serve("embedded.aws.batch", images=IMAGES))
    pid = int(jobs.wait_for_line(jobs.submit(jobs.define("echo $$; exec sleep 60"))))
    urlopen(Request(f"{jobs.endpoint}/moto-api/reset", method="POST")).close()  # noqa: S310 - of loopback
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()
    assert jobs.batch.describe_job_queues()["jobQueues"] == []


def test_a_job_shows_its_tags(jobs: Jobs) -> None:
    job = jobs.run("true", tags={"phase": "ingest"}, propagateTags=True)
    assert (job["tags"], job["propagateTags"]) == ({"phase": "ingest"}, True)


def test_a_job_whose_role_ecs_cannot_have_fails_before_it_starts(jobs: Jobs) -> None:
    role = jobs.role("not-for-ecs", service="lambda")
    job = jobs.wait(jobs.submit(jobs.define("true", jobRoleArn=role)))
    assert (job["status"], job["statusReason"]) == ("FAILED", "Task failed to start")
    assert job["container"]["reason"].startswith(f"ECS was unable to assume the role '{role}'")


def test_temporary_files_go_with_their_job(jobs: Jobs) -> None:
    job = jobs.run('[ -w "$TMPDIR" ] && touch $TMPDIR/left && echo $TMPDIR')
    (folder,) = jobs.lines(job)
    assert Path(folder).parent.is_dir()
    assert not Path(folder).exists()

"""What the tests of Batch say to it: definitions, jobs, and waiting for them."""

from __future__ import annotations

import time
import uuid
from typing import Any

from embedded.aws.account import client
from tests.embedded.roles import trusting

SHELL = "registry/shell:1"
SCRIPT = "registry/script:1"
MISSING = "registry/missing:1"
IMAGES = {
    SHELL: """
        FROM debian
        ENV FIRST=image SECOND=image THIRD=image
        ENTRYPOINT ["/bin/sh", "-c"]
        CMD ["echo the CMD"]
    """,
    SCRIPT: 'FROM python\nCOPY script.py /opt/code/script.py\nENTRYPOINT ["python", "/opt/code/script.py"]\n',
    MISSING: 'FROM debian\nENTRYPOINT ["no-such-program"]\n',
}
_WAIT_S = 30


class Jobs:
    """A queue of a Batch at an endpoint."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.batch = client("batch", endpoint)
        self.queue = "queue"
        environment = self.batch.create_compute_environment(
            computeEnvironmentName="environment", type="UNMANAGED", serviceRole=self.role("service")
        )["computeEnvironmentArn"]
        self.batch.create_job_queue(
            jobQueueName=self.queue,
            state="ENABLED",
            priority=1,
            computeEnvironmentOrder=[{"order": 1, "computeEnvironment": environment}],
        )

    def role(self, name: str, service: str = "ecs-tasks") -> str:
        """ARN of a new role that a service may act as."""
        iam = client("iam", self.endpoint)
        return str(iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusting(service))["Role"]["Arn"])

    def define(self, *command: str, image: str = SHELL, more: dict[str, Any] | None = None, **container: Any) -> str:
        """Register a definition: `container` are its properties, `more` what is beside them. Answers its name."""
        name = f"definition-{uuid.uuid4().hex[:8]}"
        needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "512"}]
        properties = {"image": image, "command": list(command), "resourceRequirements": needs, **container}
        self.batch.register_job_definition(
            jobDefinitionName=name, type="container", containerProperties=properties, **(more or {})
        )
        return name

    def submit(self, definition: str, name: str = "job", **request: Any) -> str:
        """Submit a job and answer its id."""
        answer = self.batch.submit_job(jobName=name, jobQueue=self.queue, jobDefinition=definition, **request)
        return str(answer["jobId"])

    def run(self, *command: str, more: dict[str, Any] | None = None, **request: Any) -> dict[str, Any]:
        """Submit a job of the shell's image and wait for its end."""
        return self.wait(self.submit(self.define(*command, more=more), **request))

    def describe(self, job_id: str) -> dict[str, Any]:
        """What DescribeJobs says of one job."""
        found: list[dict[str, Any]] = self.batch.describe_jobs(jobs=[job_id])["jobs"]
        return found[0]

    def wait(self, job_id: str, *statuses: str) -> dict[str, Any]:
        """Wait until a job has one of these statuses, or has ended."""
        until = time.monotonic() + _WAIT_S
        while time.monotonic() < until:
            job = self.describe(job_id)
            if job["status"] in (statuses or ("SUCCEEDED", "FAILED")):
                return job
            time.sleep(0.03)
        raise TimeoutError(f"{job_id} is {job['status']}")

    def wait_for_line(self, job_id: str) -> str:
        """The first line that a running job has logged."""
        until = time.monotonic() + _WAIT_S
        while time.monotonic() < until:
            lines = self.lines(self.wait(job_id, "RUNNING"))
            if lines:
                return lines[0]
            time.sleep(0.05)
        raise TimeoutError(f"{job_id} has logged nothing")

    def lines(self, described: dict[str, Any], group: str = "/aws/batch/job") -> list[str]:
        """What a job, or an attempt, has logged."""
        logs, stream = client("logs", self.endpoint), described["container"]["logStreamName"]
        events = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
        return [event["message"] for event in events]

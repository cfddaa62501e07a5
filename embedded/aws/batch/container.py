"""One attempt of a Batch job: the program of its image, as a process with its role's credentials."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from botocore.exceptions import ClientError

from app.processes import Child
from embedded.aws.account import OPERATOR, Credentials, client
from embedded.aws.batch.job import Attempt, Job
from embedded.aws.batch.order import LogOptions
from embedded.aws.batch.retry import Ended
from embedded.aws.host import Host
from embedded.aws.iam.trust import NotTrusted
from embedded.aws.images import Image, UnknownImage
from embedded.aws.logs import LogStream

_NOBODY = Credentials("", "")
"""Of a job without a role: on Fargate it has none, and on EC2 it should not use its instance's."""
_PRINCIPAL = "ecs-tasks.amazonaws.com"
_NO_PROCESS = (
    "CannotStartContainerError: Error response from daemon: failed to create task for container: failed to create shim"
    " task: OCI runtime create failed: runc create failed: unable to start container process:"
)


class NotStarted(Exception):
    """The container cannot be started; its text is the container's reason."""

    def ended(self) -> Ended:
        """What Batch makes of it."""
        return Ended(None, str(self), "Task failed to start")


def run_attempt(host: Host, job: Job, attempt: Attempt, started: Callable[[Child], None]) -> Ended:
    """Start the attempt's process, tell `started`, and wait for its end in this thread."""
    folder = host.folder / "batch"
    folder.mkdir(parents=True, exist_ok=True)
    log = None
    try:
        argv, environ = _prepare(host, job, attempt)
        log = _open_log(host, job, attempt)
        with tempfile.TemporaryDirectory(dir=folder, prefix="job-", ignore_cleanup_errors=True) as own:
            child = _start(host, argv, environ, log, Path(own))
            started(child)
            return Ended(host.finish(child))
    except NotStarted as exc:
        return exc.ended()
    finally:
        if log is not None:
            log.close()


def _prepare(host: Host, job: Job, attempt: Attempt) -> tuple[list[str], dict[str, str]]:
    """The process's words and variables."""
    order = job.order
    try:
        image = host.images.find(order.container["image"])
    except UnknownImage as exc:
        raise NotStarted(f"CannotPullContainerError: {exc}") from exc
    role = order.container.get("jobRoleArn")
    credentials = _assume(host, role, attempt) if role else _NOBODY
    environ = host.environ(credentials, {**image.environ, **order.variables(), **_told(job, attempt)})
    words = [*image.entrypoint, *(order.command() or image.command)]
    return _locate(words, image, environ["PATH"]), environ


def _assume(host: Host, role: str, attempt: Attempt) -> Credentials:
    try:
        return host.credentials(role, attempt.task_id, _PRINCIPAL)
    except NotTrusted as exc:
        raise NotStarted(f"ECS was unable to assume the role '{role}' that was provided for this task: {exc}") from exc


def _told(job: Job, attempt: Attempt) -> dict[str, str]:
    """The variables by which Batch tells a job about itself."""
    array: dict[str, str] = {}
    if job.parent is not None:
        size = len(job.parent.children)
        array = {"AWS_BATCH_JOB_ARRAY_INDEX": str(job.index), "AWS_BATCH_JOB_ARRAY_SIZE": str(size)}
    return {
        "AWS_BATCH_JOB_ID": job.job_id,
        "AWS_BATCH_JOB_ATTEMPT": str(attempt.number),
        "AWS_BATCH_JQ_NAME": str(job.order.queue.name),
        "AWS_BATCH_CE_NAME": job.order.environment,
        **array,
    }


def _locate(words: Sequence[str], image: Image, path: str) -> list[str]:
    """The words with files of the image where they lie in the checkout, and the program found."""
    if not words:
        raise NotStarted("CannotCreateContainerError: Error response from daemon: No command specified")
    copied = [image.file(word) if word.startswith("/") else None for word in words]
    program, *arguments = [
        str(file) if file and file.exists() else word for word, file in zip(words, copied, strict=True)
    ]
    found = shutil.which(program, path=path)
    if found is None:
        why = f"stat {program}: no such file or directory" if "/" in program else "executable file not found in $PATH"
        raise NotStarted(f'{_NO_PROCESS} exec: "{words[0]}": {why}: unknown')
    return [found, *arguments]


def _start(host: Host, argv: list[str], environ: dict[str, str], log: LogStream | None, folder: Path) -> Child:
    try:
        return host.start(argv, environ, log, cwd=folder)
    except (OSError, RuntimeError) as exc:  # words that are too long, or a host that is going down
        raise NotStarted(f"CannotStartContainerError: {exc}") from exc


def _open_log(host: Host, job: Job, attempt: Attempt) -> LogStream | None:
    """The attempt's own stream, written as the execution role; without one, as what the instance may do."""
    options = job.order.log()
    if options is None:
        return None
    role = job.order.container.get("executionRoleArn")
    credentials = _assume(host, role, attempt) if role else OPERATOR
    stream = f"{options.prefix}/default/{attempt.task_id}"
    _create_stream(host.endpoint, credentials, options, stream)
    attempt.log_stream = stream
    return LogStream(host.endpoint, credentials, options.group, stream)


def _create_stream(endpoint: str, credentials: Credentials, options: LogOptions, stream: str) -> None:
    """Make the stream before the container starts, as Docker's driver does: without one it does not start."""
    logs = client("logs", endpoint, credentials)
    try:
        if options.create:
            with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
                logs.create_log_group(logGroupName=options.group)
        logs.create_log_stream(logGroupName=options.group, logStreamName=stream)
    except ClientError as exc:
        raise NotStarted(
            "CannotStartContainerError: Error response from daemon: failed to initialize logging driver:"
            f" failed to create Cloudwatch log stream: {exc}"
        ) from exc

"""AWS Batch whose jobs are processes of this machine: in place of moto's, which start containers or nothing.

Queues, compute environments and job definitions stay moto's. Here are its calls about jobs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from moto.batch.exceptions import ClientException, ValidationError
from moto.batch.models import JOB_NAME_REGEX, BatchBackend
from moto.batch.responses import BatchResponse
from moto.batch.utils import make_arn_for_job
from moto.core.base_backend import BaseBackend

from embedded.aws.batch.fleet import Fleet
from embedded.aws.batch.job import Job
from embedded.aws.batch.listing import list_jobs
from embedded.aws.batch.order import LOG_GROUP, Order
from embedded.aws.host import Host

_SMALLEST_ARRAY = 2
_LARGEST_ARRAY = 10_000
_MOST_DEPENDENCIES = 20
_MOST_TAGS = 50

_Call = Callable[[Any, Mapping[str, Any]], dict[str, Any]]


def install(host: Host) -> None:
    """Make moto's Batch run its jobs on this host."""
    calls = _Calls(Fleet(host))
    BatchResponse.submitjob = _answering(calls.submit)
    BatchResponse.describejobs = _answering(calls.describe)
    BatchResponse.listjobs = _answering(calls.list)
    BatchResponse.canceljob = _answering(calls.cancel)
    BatchResponse.terminatejob = _answering(calls.terminate)
    BatchBackend.reset = _resetting(calls.reset)


def _answering(call: _Call) -> Callable[[Any], str]:
    """A method of moto's response class, of a call that gets the backend and the request's body."""

    def answer(response: Any) -> str:
        return json.dumps(call(response.batch_backend, json.loads(response.body)))

    return answer


def _resetting(reset: Callable[[Any], None]) -> Callable[[Any], None]:
    """A method of moto's backend class: a function, for a bound method would not get the backend."""

    def method(backend: Any) -> None:
        reset(backend)

    return method


class _Calls:
    """The API's calls about jobs, which stand where moto's would: in the backend, by their id, and in their queue."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def submit(self, backend: Any, request: Mapping[str, Any]) -> dict[str, Any]:
        """SubmitJob."""
        job = Job(
            _order(backend, request), make_arn_for_job(backend.account_id, "", backend.region_name), size=_size(request)
        )
        dependencies = list(_dependencies(job, backend.get_job_by_id))
        _tag(backend, job.arn, request.get("tags") or {})
        with self._fleet.unchanging():
            backend._jobs |= {one.job_id: one for one in (job, *job.children)}
            job.order.queue.jobs.append(job)
            log = job.order.log()
            if log is not None and log.group == LOG_GROUP:
                backend.logs_backend.ensure_log_group(LOG_GROUP)
            self._fleet.submit(job, dependencies)
        return {"jobArn": job.arn, "jobName": job.order.name, "jobId": job.job_id}

    def describe(self, backend: Any, request: Mapping[str, Any]) -> dict[str, Any]:
        """DescribeJobs: by ids or ARNs; those that are none are left out."""
        with self._fleet.unchanging():
            found = [backend.get_job_by_id(name.rpartition("/")[2]) for name in request.get("jobs") or []]
            jobs = [(job, job.describe()) for job in found if job is not None]
        return {"jobs": [{**said, "tags": backend.list_tags_for_resource(job.arn)} for job, said in jobs]}

    def list(self, backend: Any, request: Mapping[str, Any]) -> dict[str, Any]:
        """ListJobs, of a queue or of an array."""
        with self._fleet.unchanging():
            if request.get("jobQueue"):
                return list_jobs(_queue(backend, request["jobQueue"]).jobs, request)
            parent = backend.get_job_by_id(request.get("arrayJobId") or "")
            if parent is None:
                raise ClientException("ListJobs takes the job queue, or the id of an array job, to list the jobs of")
            return list_jobs(parent.children, request)

    def cancel(self, backend: Any, request: Mapping[str, Any]) -> dict[str, Any]:
        """CancelJob."""
        return self._end(self._fleet.cancel, backend, request)

    def terminate(self, backend: Any, request: Mapping[str, Any]) -> dict[str, Any]:
        """TerminateJob."""
        return self._end(self._fleet.terminate, backend, request)

    def reset(self, backend: Any) -> None:
        """What moto does when all its backends are reset, with the processes stopped."""
        for job in [job for job in backend._jobs.values() if isinstance(job, Job)]:
            self._fleet.terminate(job, "the embedded AWS was reset")
        BaseBackend.reset(backend)

    @staticmethod
    def _end(end: Callable[[Job, str], None], backend: Any, request: Mapping[str, Any]) -> dict[str, Any]:
        for name in ("jobId", "reason"):
            if not request.get(name):
                raise ClientException(f"'{name}' is a required field (cannot be an empty string)")
        job = backend.get_job_by_id(request["jobId"].rpartition("/")[2])
        if isinstance(job, Job):  # and not one of an earlier life
            end(job, request["reason"])
        return {}


def _order(backend: Any, request: Mapping[str, Any]) -> Order:
    """What the request asks for, where it can be had."""
    if JOB_NAME_REGEX.match(request["jobName"]) is None:
        raise ClientException("Job name should match valid pattern")
    definition = backend.get_job_definition(request["jobDefinition"])
    if definition is None:
        raise ClientException(f"Job definition {request['jobDefinition']} does not exist")
    if definition.container_properties is None or definition.container_properties["secrets"]:
        raise ClientException(f"Job definition {definition.name}: only single containers without secrets run here")
    return Order.read(request, _queue(backend, request["jobQueue"]), definition)


def _queue(backend: Any, name: str) -> Any:
    queue = backend.get_job_queue(name)
    if queue is None:
        raise ClientException(f"Job queue {name} does not exist")
    return queue


def _size(request: Mapping[str, Any]) -> int:
    """How many children; 0 for a job that is no array."""
    properties = request.get("arrayProperties") or {}
    if "size" not in properties:
        return 0
    size = int(properties["size"])
    if not _SMALLEST_ARRAY <= size <= _LARGEST_ARRAY:
        raise ClientException(f"Array size {size} must be between {_SMALLEST_ARRAY} and {_LARGEST_ARRAY}")
    return size


def _tag(backend: Any, arn: str, tags: Mapping[str, str]) -> None:
    listed = backend.tagger.convert_dict_to_tags_input(tags)
    wrong = backend.tagger.validate_tags(listed, _MOST_TAGS)
    if wrong:
        raise ValidationError(wrong)
    backend.tagger.tag_resource(arn, listed)


def _dependencies(job: Job, find: Callable[[str], Job | None]) -> Iterator[tuple[Job, Job]]:
    """Pairs of the job, or of a child of it, and a job that it waits for."""
    if len(job.order.depends_on) > _MOST_DEPENDENCIES:
        raise ClientException(f"A job can depend on {_MOST_DEPENDENCIES} jobs at most")
    for dependency in job.order.depends_on:
        kind, other_id = dependency.get("type"), dependency.get("jobId")
        if kind and not job.children:
            raise ClientException(f"A dependency of type {kind} is for array jobs")
        if not other_id and kind == "SEQUENTIAL":
            yield from ((later, earlier) for earlier, later in pairwise(job.children))
            continue
        other = find(other_id or "")
        if other is None:
            raise ClientException(f"Job {other_id}, which the job depends on, does not exist")
        if kind == "N_TO_N":
            if len(other.children) != len(job.children):
                raise ClientException(f"Job {other_id} is no array of {len(job.children)} jobs, as N_TO_N needs")
            yield from zip(job.children, other.children, strict=True)
        else:
            yield from ((one, other) for one in (job, *job.children))

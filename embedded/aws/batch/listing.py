"""ListJobs: which jobs, in which order, page by page.

https://docs.aws.amazon.com/batch/latest/APIReference/API_ListJobs.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from moto.batch.exceptions import ClientException

from embedded.aws.batch.job import RUNNING, STATUSES, Job, PastJob
from embedded.aws.batch.retry import matches

_PAGE = 1000
_FILTERED_PAGE = 100


def list_jobs(jobs: Iterable[Job | PastJob], request: Mapping[str, Any]) -> dict[str, Any]:
    """The page of these jobs that a call of ListJobs asks for: a queue's latest first, an array's by their index."""
    chosen = _chosen(list(jobs), request)
    after = _place_of(request.get("nextToken"))
    rest = sorted((job for job in chosen if after is None or _place(job) > after), key=_place)
    most = _FILTERED_PAGE if request.get("filters") else _PAGE
    size = min(int(request.get("maxResults") or most), most)
    page = {"jobSummaryList": [job.summary() for job in rest[:size]]}
    return page | ({"nextToken": str(_place(rest[size - 1]))} if len(rest) > size else {})


def _chosen(jobs: list[Job | PastJob], request: Mapping[str, Any]) -> list[Job | PastJob]:
    """Those that pass the filters; without one, those of the status, which is RUNNING where none is given."""
    filters, status = request.get("filters") or [], request.get("jobStatus")
    if status is not None and status not in STATUSES:
        raise ClientException(f"Job status is not one of {' | '.join(STATUSES)}")
    for condition in filters:
        jobs = [job for job in jobs if any(_passes(job, condition["name"], value) for value in condition["values"])]
    if filters and not (status and all(condition["name"] == "SHARE_IDENTIFIER" for condition in filters)):
        return jobs
    return [job for job in jobs if job.status == (status or RUNNING)]


def _passes(job: Job | PastJob, name: str, value: str) -> bool:
    match name:
        case "JOB_NAME":
            return matches(job.name.lower(), value.lower())
        case "JOB_DEFINITION":
            return bool(value == job.definition_arn or matches(_name_of(job.definition_arn), value))
        case "BEFORE_CREATED_AT":
            return job.created_ms < int(value)
        case "AFTER_CREATED_AT":
            return job.created_ms > int(value)
        case "SHARE_IDENTIFIER":
            return job.share_identifier == value
        case _:
            raise ClientException(f"Filter {name} is not one that ListJobs has")


def _name_of(definition_arn: str) -> str:
    """A definition's name, without its revision."""
    return definition_arn.rpartition("/")[2].rpartition(":")[0]


def _place(job: Job | PastJob) -> int:
    """Where it stands in its list, whatever joins the list meanwhile."""
    return job.index if job.parent else -job.number


def _place_of(token: str | None) -> int | None:
    try:
        return None if token is None else int(token)
    except ValueError:
        raise ClientException("Invalid nextToken") from None

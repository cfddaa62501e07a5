"""ListTrainingJobs as SageMaker answers it; moto cuts its pages before it filters, and does not sort."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from moto.sagemaker.exceptions import ValidationError

from embedded.aws.training.job import TrainingJob
from embedded.aws.training.request import check_request

_PAGE = 10
"""Jobs of a page that nobody gave a size."""
_SORTED_BY = {"Name": "training_job_name", "CreationTime": "creation_time", "Status": "training_job_status"}


def list_jobs(jobs: Iterable[TrainingJob], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to ListTrainingJobs with these parameters."""
    check_request("ListTrainingJobs", parameters)
    found = [job for job in list(jobs) if _wanted(job, parameters)]
    attribute = _SORTED_BY[parameters.get("SortBy", "CreationTime")]
    found.sort(key=lambda job: getattr(job, attribute), reverse=parameters.get("SortOrder") == "Descending")
    token = parameters.get("NextToken", "0")
    if not token.isdecimal():
        raise ValidationError("Invalid pagination token")
    start, size = int(token), parameters.get("MaxResults", _PAGE)
    answer: dict[str, Any] = {"TrainingJobSummaries": [_summary(job) for job in found[start : start + size]]}
    if start + size < len(found):
        answer["NextToken"] = str(start + size)
    return answer


def _wanted(job: TrainingJob, parameters: Mapping[str, Any]) -> bool:
    conditions: Mapping[str, Callable[[Any], bool]] = {
        "NameContains": lambda text: text in job.training_job_name,
        "StatusEquals": lambda status: status == job.training_job_status,
        "CreationTimeAfter": lambda time: _aware(job.creation_time) > _aware(time),
        "CreationTimeBefore": lambda time: _aware(job.creation_time) < _aware(time),
        "LastModifiedTimeAfter": lambda time: _aware(job.last_modified_time) > _aware(time),
        "LastModifiedTimeBefore": lambda time: _aware(job.last_modified_time) < _aware(time),
    }
    return all(holds(parameters[name]) for name, holds in conditions.items() if name in parameters)


def _aware(time: datetime) -> datetime:
    """moto's times are UTC without saying so."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _summary(job: TrainingJob) -> dict[str, Any]:
    described = job.response_object
    names = ("Name", "Arn", "Status")
    summary = {f"TrainingJob{name}": described[f"TrainingJob{name}"] for name in names}
    times = ("CreationTime", "LastModifiedTime", "TrainingEndTime", "SecondaryStatus")
    return summary | {name: described[name] for name in times if name in described}

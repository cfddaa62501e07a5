"""A training job as DescribeTrainingJob shows it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from moto.core.utils import utcnow
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import FakeTrainingJob

_MESSAGES: Final = {
    "Starting": "Preparing the instances for training",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Stopping": "Stopping the training job",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "MaxWaitTimeExceeded": "Training job exceeded MaxWaitTimeInSeconds provided",
}

_CHANGE = threading.RLock()
"""Held while a job changes and while it is described: nobody sees half of a change."""


@dataclass(frozen=True)
class End:
    """How a job ended: Completed, Stopped or Failed. described: attributes that belong to the end."""

    status: str
    secondary_status: str
    described: Mapping[str, Any] = field(default_factory=dict)


class TrainingJob(FakeTrainingJob):  # type: ignore[misc]
    """moto's record, whose attributes are what DescribeTrainingJob answers, with a life instead of an early end."""

    def __init__(self, **parameters: Any) -> None:
        specification = dict(parameters["algorithm_specification"])
        super().__init__(**parameters)
        self.algorithm_specification = specification  # moto puts metrics of its own into it
        self.environment: dict[str, str] = {}
        self.model_artifacts: dict[str, str] | None = None
        self.failure_reason: str | None = None
        self.training_start_time: datetime | None = None
        self.training_end_time: datetime | None = None
        self.training_time_in_seconds: int | None = None
        self.billable_time_in_seconds: int | None = None
        self.final_metric_data_list: list[dict[str, Any]] | None = None
        self.secondary_status_transitions: list[dict[str, Any]] = []
        self.training_job_status = "InProgress"
        self._change("Starting")

    @property
    def response_object(self) -> dict[str, Any]:
        """What DescribeTrainingJob answers."""
        with _CHANGE:
            described: dict[str, Any] = super().response_object
        return described

    @property
    def stopping(self) -> bool:
        """Whether it has been asked to stop."""
        return bool(self.training_job_status == "Stopping")

    def enter(self, secondary_status: str) -> None:
        """Go on to the next thing that a job in progress does; one that is being stopped stays in that."""
        with _CHANGE:
            if self.training_job_status == "InProgress":
                self._change(secondary_status)
                if secondary_status == "Downloading":
                    self.training_start_time = self.last_modified_time

    def stop(self) -> None:
        """Ask it to stop; ValidationError when it has ended."""
        with _CHANGE:
            if self.training_job_status not in {"InProgress", "Stopping"}:
                raise ValidationError(
                    f"The request was rejected because the training job is in status {self.training_job_status}."
                )
            if self.training_job_status == "InProgress":
                self.training_job_status = "Stopping"
                self._change("Stopping")

    def end(self, end: End) -> None:
        """End it."""
        with _CHANGE:
            self._change(end.secondary_status)
            now = self.last_modified_time
            self.secondary_status_transitions[-1]["EndTime"] = now
            if self.training_start_time:
                self.training_end_time = now
                self.training_time_in_seconds = max(1, round((now - self.training_start_time).total_seconds()))
                self.billable_time_in_seconds = self.training_time_in_seconds
            for name, value in end.described.items():
                setattr(self, name, value)
            self.training_job_status = end.status

    def _change(self, secondary_status: str) -> None:
        now = utcnow()
        ended = [{"EndTime": now, **transition} for transition in self.secondary_status_transitions]
        entered = {"Status": secondary_status, "StartTime": now, "StatusMessage": _MESSAGES[secondary_status]}
        self.secondary_status_transitions = [*ended, entered]
        self.secondary_status = secondary_status
        self.last_modified_time = now

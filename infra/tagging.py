"""Tags by which a bill is told apart. What the state machine starts carries them as well."""

from __future__ import annotations

from typing import Any

DEPLOYMENT_TAG = "stockflow:deployment"
PHASE_TAG = "stockflow:phase"
RUN_TAG = "stockflow:run"


def task_tags(deployment: str, phase: str) -> list[dict[str, Any]]:
    """Tags of what an execution starts, as SageMaker and EMR take them."""
    return [
        {"Key": DEPLOYMENT_TAG, "Value": deployment},
        {"Key": PHASE_TAG, "Value": phase},
        {"Key": RUN_TAG, "Value.$": "$.run_id"},
    ]

"""Batch jobs: the ingest with its fleet, and the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app import contract
from infra.states.asl import BATCH_FAULTS, FLEET_FAULTS, State, States, backoff, call, chain, task


@dataclass(frozen=True)
class Job:
    """A job definition, the queue it is for, and the limit of a submission with all its tries."""

    queue: str
    definition: str
    timeout_s: int


def batch_job(job: Job, name: str, command: Sequence[str], extra: Mapping[str, Any] | None = None) -> State:
    """Submit a job of this execution's run and wait for its end."""
    parameters = {
        "JobName.$": f"States.Format('{{}}-{name}', $.job_prefix)",
        "JobQueue": job.queue,
        "JobDefinition": job.definition,
        "ContainerOverrides": {
            "Command": list(command),
            "Environment": [
                {"Name": contract.ENV_RUN_ID, "Value.$": "$.run_id"},
                {"Name": contract.ENV_SETTINGS, "Value.$": "$.settings_json"},
            ],
        },
        **(extra or {}),
    }
    return task(
        "arn:aws:states:::batch:submitJob.sync", parameters, retry=[backoff(*BATCH_FAULTS)], timeout_s=job.timeout_s
    )


def ingest_states(*, shards: Job, fleet_group: str | None, coverage: str, then: str) -> States:
    """Scale the fleet, fetch all shards, merge what they wrote, release the fleet, check the coverage.

    fleet_group: the Auto Scaling group of an unmanaged environment; None where Batch scales by itself. An array
    job has at least two children, so one shard is a plain job. The merge is a job like a shard's, on the fleet as long
    as it is there: it starts at once, and the image is on its instances.
    """
    states: States = {}
    if fleet_group:
        states["ScaleFleet"] = _set_fleet(fleet_group, {"DesiredCapacity.$": "$.plan.instances"})
    states |= {
        "IfOneShard": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.plan.shards", "NumericEquals": 1, "Next": "IngestShard"}],
            "Default": "IngestShards",
        },
        "IngestShard": batch_job(shards, "ingest", ["ingest", "--shard", "0"]) | {"Next": "CompactBars"},
        "IngestShards": batch_job(shards, "ingest", ["ingest"], {"ArrayProperties": {"Size.$": "$.plan.shards"}}),
        "CompactBars": batch_job(shards, "compact", ["ingest", "--only", "compact"]),
    }
    if fleet_group:
        states["ReleaseFleet"] = _set_fleet(fleet_group, {"DesiredCapacity": 0})
    states["CheckCoverage"] = call(coverage, into="$.coverage", fields=("requested", "coverage", "rows"))
    return chain(states, then)


def dataset_states(*, job: Job, then: str) -> States:
    """Turn the stored bars into the run's dataset."""
    return chain({"BuildDataset": batch_job(job, "dataset", ["dataset"])}, then)


def _set_fleet(group: str, capacity: Mapping[str, Any]) -> State:
    return task(
        "arn:aws:states:::aws-sdk:autoscaling:setDesiredCapacity",
        {"AutoScalingGroupName": group, **capacity, "HonorCooldown": False},
        retry=[backoff(*FLEET_FAULTS)],
        timeout_s=60,
    )

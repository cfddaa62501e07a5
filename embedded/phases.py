"""Which states of the machine make up which phase: for people, who think in phases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from embedded.execution import Execution, StateRun

PHASE_STATES = {
    "ingest": (
        *("PlanShards", "ScaleFleet", "IngestShard", "IngestShards"),
        *("CompactBars", "ReleaseFleet", "CheckCoverage"),
    ),
    "dataset": ("BuildDataset",),
    "train": ("TrainModel",),
    "promote": ("GateModel", "PromoteModel", "NothingToServe"),
    "serve": (
        *("CreateCluster", "UseCluster", "ServeSession", "StreamPredictions", "FeedTicks"),
        *("VerifyPredictions", "ReleaseCluster"),
    ),
}
PHASES = tuple(PHASE_STATES)


def phase_of(state: str) -> str | None:
    """The phase that a state belongs to; None for the machine's own ones."""
    return next((phase for phase, states in PHASE_STATES.items() if state in states), None)


@dataclass
class PhaseRun:
    """How one phase of an execution went. result: what it stored."""

    name: str
    status: str = "not started"
    wall_s: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)


def read_phases(execution: Execution) -> list[PhaseRun]:
    """How each phase went so far."""
    failed = None if execution.status in {"RUNNING", "SUCCEEDED"} else execution.failed_state()
    return [_read_phase(name, execution, failed) for name in PHASES]


def _read_phase(name: str, execution: Execution, failed: StateRun | None) -> PhaseRun:
    states = [state for state in execution.states if state.name in PHASE_STATES[name]]
    if not states:
        return PhaseRun(name)
    ends = [state.exited for state in states]
    last = max((end for end in ends if end is not None), default=states[0].entered)
    status = "succeeded" if None not in ends else "running"
    if failed is not None and failed.name in PHASE_STATES[name]:
        status = "interrupted" if execution.status == "ABORTED" else "failed"
        last = execution.stopped or last
    return PhaseRun(name, status, (last - states[0].entered).total_seconds())

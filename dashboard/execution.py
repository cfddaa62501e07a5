"""How a run fares: its phases, the states of its execution, its shards, its training and its stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from app import contract
from app.storage import ObjectInfo
from dashboard.models import Model, Models
from embedded.execution import Execution, StateRun
from embedded.phases import PHASES, phase_of, read_phases
from embedded.reasons import explain_by_service

WAITING, BEGUN, RUNNING, DONE, FAILED = "waiting", "begun", "running", "done", "failed"
DIED: Final = "died"
COUNTED: Final = ("predictions", "ticks", "late", "duplicate", "revised", "skipped")
"""What a stream counts."""
_SILENT: Final = timedelta(minutes=1)
"""A stream that runs writes its health every ten seconds."""
_CHOOSES: Final = "If"
_STATUSES: Final = {"not started": WAITING, "succeeded": DONE}
_STREAMS: Final = {"running": RUNNING, "finished": DONE, "stopped": "stopped"}


@dataclass(frozen=True)
class Phase:
    """One phase. status: waiting, begun (objects cannot tell whether it still runs), running, done or failed."""

    name: str
    status: str
    note: str
    seconds: float | None


@dataclass(frozen=True)
class Result:
    """Of a phase's result what is shown. coverage: the ingest's share of tickers."""

    rows: int
    wall_s: float
    coverage: float | None


@dataclass(frozen=True)
class Shard:
    """A shard of the ingest. tickers: how many ended how; empty until it has left its manifest."""

    name: str
    planned: int
    rows: int
    tickers: Mapping[str, int]

    @property
    def done(self) -> bool:
        """Whether it has left its manifest."""
        return bool(self.tickers)


@dataclass(frozen=True)
class Training:
    """Losses by epoch. running: of each step of the epoch that is not over, the mean of its ranks.

    epochs: how many are asked for, None where nobody tells.
    """

    model_id: str
    history: Sequence[Mapping[str, float]]
    running: Sequence[float]
    epochs: int | None
    over: bool


@dataclass(frozen=True)
class Health:
    """What a stream writes of itself: app.serving.health. newest_bar: ISO 8601, empty before the first one."""

    state: str
    why: str
    at: datetime
    newest_bar: str
    model_id: str
    refused: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Stream:
    """How the stream fares. state: as it wrote it, or that it died.

    lag_s: from when the newest predicted tick was stored to when it was scored; behind_min: minutes of ticks that are
    stored and not predicted yet. Both None where ticks are not objects.
    """

    health: Health
    state: str
    lag_s: float | None
    behind_min: int | None


@dataclass(frozen=True)
class Run:
    """What is known of one run. status: of the execution, empty where Step Functions was not asked."""

    run_id: str
    status: str = ""
    started: datetime | None = None
    stopped: datetime | None = None
    why: str = ""
    states: Sequence[StateRun] = ()
    phases: Sequence[Phase] = ()
    shards: Sequence[Shard] = ()
    training: Training | None = None
    stream: Stream | None = None


def read_result(told: Mapping[str, Any]) -> Result:
    """What a phase stored when it had succeeded."""
    coverage = told.get("coverage")
    return Result(int(told["rows"]), float(told["wall_s"]), None if coverage is None else float(coverage))


def read_shard(planned: int, manifest: Mapping[str, Any]) -> Shard:
    """A shard that has left its manifest."""
    tickers = manifest["tickers"]
    counts: dict[str, int] = {}
    for ticker in tickers:
        counts[str(ticker["status"])] = counts.get(str(ticker["status"]), 0) + 1
    return Shard(str(manifest["shard"]), planned, sum(int(ticker["rows"]) for ticker in tickers), counts)


def read_health(told: Mapping[str, Any]) -> Health:
    """The stream's health as it wrote it."""
    counts = {name: int(told[name]) for name in COUNTED}
    words = {name: str(told[name] or "") for name in ("state", "why", "newest_bar", "model_id", "refused")}
    return Health(at=datetime.fromisoformat(told["at"]), counts=counts, **words)


def read_stream(
    health: Health, now: datetime, ticks: Mapping[str, ObjectInfo], newest: tuple[datetime, datetime] | None
) -> Stream:
    """How the stream fares at this moment.

    ticks: of the run, ascending; newest: `as_of` and `produced_at` of the newest prediction.
    """
    silent = health.state == "running" and now - health.at > _SILENT
    lag_s = behind_min = None
    stored = {contract.ticks_place(key)[0]: info.modified for key, info in ticks.items()}
    if newest and stored:
        as_of, produced = newest
        as_of_ms = int(as_of.timestamp() * 1000)
        behind_min = sum(epoch_ms > as_of_ms for epoch_ms in stored)
        if as_of_ms in stored:
            lag_s = max(0.0, (produced - stored[as_of_ms]).total_seconds())
    return Stream(health, DIED if silent else health.state, lag_s, behind_min)


def shown_states(execution: Execution) -> tuple[StateRun, ...]:
    """The states that were entered, but for those that only choose the next one."""
    return tuple(
        state for state in execution.states if not (state.name.startswith(_CHOOSES) and state.name[2].isupper())
    )


def read_run(
    run_id: str,
    *,
    execution: Execution | None,
    results: Mapping[str, Result],
    shards: Sequence[Shard],
    training: Training | None,
    models: Models,
    stream: Stream | None,
) -> Run:
    """Everything together. results: of the phases that have ended well, by their names."""
    trained = next((model for model in models.rows if model.run_id == run_id), None)
    notes = _notes(results, shards, training, trained, stream)
    told = _by_objects(notes, results, trained, stream)
    if execution is not None:
        told = _by_states(execution, notes, told)
    run = Run(run_id, phases=told, shards=shards, training=training, stream=stream)
    if execution is None:
        return run
    return Run(
        **{
            **vars(run),
            "status": execution.status,
            "started": execution.started,
            "stopped": execution.stopped,
            "why": "" if execution.status in {"RUNNING", "SUCCEEDED"} else explain_by_service(execution),
            "states": shown_states(execution),
        }
    )


def _notes(
    results: Mapping[str, Result],
    shards: Sequence[Shard],
    training: Training | None,
    trained: Model | None,
    stream: Stream | None,
) -> dict[str, str]:
    """What there is to say of each phase that has left something."""
    notes: dict[str, str] = {}
    done = sum(shard.done for shard in shards)
    if shards and (done or not results):  # a run without an ingest of its own has a plan too
        notes["ingest"] = f"{done} of {len(shards)} shards"
    if ingest := results.get("ingest"):
        notes["ingest"] = f"{ingest.rows:,} bars, {ingest.coverage or 0:.0%} of tickers"
    if dataset := results.get("dataset"):
        notes["dataset"] = f"{dataset.rows:,} rows"
    if training is not None and (trained is not None or not training.over):
        of = f" of {training.epochs}" if training.epochs else ""
        notes["train"] = f"{len(training.history)}{of} epochs"
    if trained is not None and trained.promoted is not None:
        notes["promote"] = "promoted" if trained.promoted else "not promoted"
    if stream is not None:
        notes["serve"] = f"{stream.health.counts['predictions']:,} predictions"
    return notes


def _by_objects(
    notes: Mapping[str, str],
    results: Mapping[str, Result],
    trained: Model | None,
    stream: Stream | None,
) -> tuple[Phase, ...]:
    """The phases as the objects tell them: a result is written when a phase has succeeded."""
    statuses = {name: BEGUN if name in notes else WAITING for name in PHASES}
    statuses |= dict.fromkeys(results, DONE)
    if trained is not None and trained.promoted is not None:
        statuses["promote"] = DONE
    if stream is not None and "serve" not in results:
        statuses["serve"] = _STREAMS.get(stream.state, FAILED)
    return tuple(
        Phase(name, statuses[name], notes.get(name, ""), results[name].wall_s if name in results else None)
        for name in PHASES
    )


def _by_states(execution: Execution, notes: Mapping[str, str], told: Sequence[Phase]) -> tuple[Phase, ...]:
    """The phases as the execution tells them; of a phase that it was not asked for, what an earlier one left."""
    entered = {phase_of(state.name) for state in execution.states}
    by_name = {phase.name: phase for phase in told}
    return tuple(
        Phase(
            found.name,
            _STATUSES.get(found.status, found.status),
            notes.get(found.name, ""),
            found.wall_s if found.status != "running" else None,
        )
        if found.name in entered
        else by_name[found.name]
        for found in read_phases(execution)
    )

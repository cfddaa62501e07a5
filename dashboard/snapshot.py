"""All that a page shows of one run, read from S3 and Step Functions at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any

import pandas as pd

from app import contract
from app.clock import Clock, system_clock
from app.ingest.plan import Plan
from app.storage import ObjectInfo, fingerprint
from app.tables import get_table
from dashboard.coverage import Coverage, read_coverage
from dashboard.execution import (
    Result,
    Run,
    Shard,
    Stream,
    Training,
    read_health,
    read_result,
    read_run,
    read_shard,
    read_stream,
)
from dashboard.forecasts import COLUMNS, Accuracy, accuracy, join_outcomes
from dashboard.machine import Begun, NotAsked
from dashboard.models import Models, read_begun, read_models, read_progress
from dashboard.objects import Objects, Stamp, stamp_of
from dashboard.source import Source
from embedded.execution import Execution
from embedded.phases import PHASES


@dataclass(frozen=True)
class Snapshot:
    """What was read. runs: all of them, the newest first; notes: what could not be read, a sentence each.

    forecasts: as dashboard.forecasts.join_outcomes makes them; forecast_stamps change when they do.
    """

    source: str
    read_at: datetime
    runs: Sequence[str]
    run: Run
    plan: Plan | None
    coverage: Coverage | None
    models: Models
    forecasts: pd.DataFrame
    forecast_stamps: tuple[Stamp, ...]
    notes: Sequence[str] = ()

    @cached_property
    def accuracies(self) -> list[Accuracy]:
        """How its predictions came out."""
        return accuracy(self.forecasts)

    @cached_property
    def marks(self) -> dict[str, str]:
        """For each part of it a text that is another one when the part is."""
        run = self.run
        running = self.read_at if run.status and not run.stopped else None
        states = [(state.name, state.status, state.attempts) for state in run.states]
        told = (run.run_id, run.status, running, states, run.phases, run.shards, run.training, run.stream, run.why)
        parts: dict[str, Any] = {
            "run": told,
            "forecasts": (run.run_id, self.forecast_stamps),
            "coverage": (run.run_id, self.coverage),
            "models": self.models,
        }
        return {name: fingerprint(repr(part).encode()) for name, part in parts.items()}


class Reader:
    """Reads one source over and over."""

    def __init__(self, source: Source, clock: Clock = system_clock) -> None:
        self.source, self._clock = source, clock
        self._market, self._models, self._predictions = (
            Objects(bucket, clock) for bucket in (source.market, source.models, source.predictions)
        )
        self._joined: dict[str, tuple[tuple[Stamp, ...], pd.DataFrame]] = {}

    def read(self, run_ids: Sequence[str]) -> dict[str, Snapshot]:
        """A snapshot of each of the runs; an empty name stands for the newest one. Raises StorageError."""
        files, models = self._market.listed(contract.RUNS_PREFIX), self._models.listed(contract.MODELS_PREFIX)
        history = read_models(self._models, models)
        begun, notes = self._begun()
        runs = _newest_first(files, begun)
        chosen = {asked: asked or next(iter(runs), "") for asked in run_ids}
        found = {
            run_id: self._snapshot(run_id, runs, files, models, history, begun.get(run_id), notes)
            for run_id in dict.fromkeys(chosen.values())
        }
        for objects in (self._market, self._models, self._predictions):
            objects.sweep()
        self._joined = {run_id: joined for run_id, joined in self._joined.items() if run_id in found}
        return {asked: found[run_id] for asked, run_id in chosen.items()}

    def _snapshot(
        self,
        run_id: str,
        runs: Sequence[str],
        files: Mapping[str, ObjectInfo],
        models: Mapping[str, ObjectInfo],
        history: Models,
        begun: Begun | None,
        notes: Sequence[str],
    ) -> Snapshot:
        plan = self._market.json(files.get(contract.plan_key(run_id)), Plan.from_json)
        coverage = self._market.json(files.get(contract.coverage_key(run_id)), lambda told: read_coverage(told, plan))
        stamps, forecasts = self._forecasts(run_id, plan)
        stream = self._stream(run_id, files, forecasts)
        execution, why = self._execution(begun)
        run = read_run(
            run_id,
            execution=execution,
            results=self._results(run_id, files),
            shards=self._shards(plan, files),
            training=self._training(run_id, models, history, stream),
            models=history,
            stream=stream,
        )
        unreadable = [
            f"{told} (not what this version of stockflow writes: it is left out)"
            for objects in (self._market, self._models, self._predictions)
            for told in objects.unreadable.values()
        ]
        return Snapshot(
            source=self.source.name,
            read_at=self._clock(),
            runs=runs,
            run=run,
            plan=plan,
            coverage=coverage,
            models=history,
            forecasts=forecasts,
            forecast_stamps=stamps,
            notes=[*notes, *why, *unreadable],
        )

    def _begun(self) -> tuple[dict[str, Begun], list[str]]:
        """Each run's newest execution."""
        if self.source.machine is None:
            return {}, []
        try:
            return {begun.run_id: begun for begun in reversed(self.source.machine.begun())}, []
        except NotAsked as exc:
            return {}, [str(exc)]

    def _execution(self, begun: Begun | None) -> tuple[Execution | None, list[str]]:
        if begun is None or self.source.machine is None:
            return None, []
        try:
            return self.source.machine.execution(begun), []
        except NotAsked as exc:
            return None, [str(exc)]

    def _results(self, run_id: str, files: Mapping[str, ObjectInfo]) -> dict[str, Result]:
        found = {name: self._market.json(files.get(contract.result_key(run_id, name)), read_result) for name in PHASES}
        return {name: result for name, result in found.items() if result}

    def _shards(self, plan: Plan | None, files: Mapping[str, ObjectInfo]) -> list[Shard]:
        if plan is None:
            return []
        shards = []
        for shard in plan.shards:
            info, planned = files.get(contract.manifest_key(plan.run_id, shard.name)), len(shard.tickers)
            done = self._market.json(info, partial(read_shard, planned))
            shards.append(done or Shard(shard.name, planned, 0, {}))
        return shards

    def _training(
        self, run_id: str, models: Mapping[str, ObjectInfo], history: Models, stream: Stream | None
    ) -> Training | None:
        """That of the run, or else of the model that it is served with."""
        if begun := read_begun(self._models, models, run_id):
            model_id, epochs = begun
            progress = read_progress(self._models, models, model_id)
            return Training(
                model_id, *(([], []) if progress is None else (progress.history, progress.running)), epochs, False
            )
        served = history.find(stream.health.model_id) if stream else None
        model = next((row for row in history.rows if row.run_id == run_id), served)
        if model is None or model.metrics is None:
            return None
        return Training(model.model_id, model.metrics.history, [], len(model.metrics.history), over=True)

    def _stream(self, run_id: str, files: Mapping[str, ObjectInfo], forecasts: pd.DataFrame) -> Stream | None:
        health = self._market.json(files.get(contract.stream_health_key(run_id)), read_health)
        if health is None:
            return None
        ticks = self._market.listed(contract.ticks_prefix(run_id))
        newest = None
        if len(forecasts):
            row = forecasts.loc[forecasts["as_of"].idxmax()]
            as_of, produced = (row[name].to_pydatetime().replace(tzinfo=UTC) for name in ("as_of", "produced_at"))
            newest = as_of, produced
        return read_stream(health, self._clock(), ticks, newest)

    def _forecasts(self, run_id: str, plan: Plan | None) -> tuple[tuple[Stamp, ...], pd.DataFrame]:
        """The run's predictions; they are joined again only when there are others."""
        first = contract.predictions_day_prefix(plan.sessions[0].day) if plan else ""
        infos = [
            info
            for key, info in self._predictions.listed(contract.PREDICTIONS_PREFIX, first).items()
            if contract.predictions_run(key) == run_id
        ]
        stamps = tuple(map(stamp_of, infos))
        tables = [
            self._predictions.read(info, lambda bucket, key: get_table(bucket, key, list(COLUMNS))) for info in infos
        ]
        if run_id not in self._joined or self._joined[run_id][0] != stamps:
            self._joined[run_id] = stamps, join_outcomes([table for table in tables if table is not None])
        return stamps, self._joined[run_id][1]


def _newest_first(files: Mapping[str, ObjectInfo], begun: Mapping[str, Begun]) -> list[str]:
    """All runs that began to leave something, or were begun, by the last that happened to them."""
    times: dict[str, datetime] = {run_id: found.started for run_id, found in begun.items()}
    for key, info in files.items():
        run_id = key.removeprefix(contract.RUNS_PREFIX).partition("/")[0]
        times[run_id] = max(times.get(run_id, info.modified), info.modified)
    return sorted(times, key=lambda run_id: (times[run_id], run_id), reverse=True)

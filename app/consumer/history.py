"""Which models there are and what became of them, and which runs there were: from the model and the market bucket."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final

from app import contract
from app.errors import ObjectMissing
from app.storage import Bucket, ObjectInfo

PHASES: Final = ("ingest", "dataset", "train", "promote", "serve")
_AT_ONCE = 8
_OF_A_RUN: Final = 3
"""Parts of the shortest key of a run: runs/<run>/plan.json."""


def models(bucket: Bucket) -> list[dict[str, Any]]:
    """Every model, the one trained last first. None is what is not known.

    state: `current` serves; `promoted` served before, or would, had another not been promoted since; `refused` by the
    gate; `candidate`, on which it has not decided; `training`, or given up. skill: over persistence on the validation
    days, by which the gate decides; test_skill: on the test days, with its 95 % interval; serving: the model it was
    compared with; runs: those that trained it.
    """
    listed = {info.key: info for info in bucket.objects(contract.MODELS_PREFIX)}
    current = _read(bucket, contract.CURRENT_MODEL_KEY, listed)
    runs: dict[str, list[str]] = defaultdict(list)
    trained: dict[str, str] = {}
    for run_id in _runs_below(contract.candidate_key, listed):
        candidate = _read(bucket, contract.candidate_key(run_id), listed)
        runs[candidate["model_id"]].append(run_id)
        trained[candidate["model_id"]] = max(trained.get(candidate["model_id"], ""), candidate.get("trained_at", ""))
    for run_id in _runs_below(contract.begun_key, listed):
        runs[_read(bucket, contract.begun_key(run_id), listed)["model_id"]].append(run_id)
    ids = runs.keys() | {_part(key, 1) for key in listed if key.endswith(f"/{contract.MODEL_METRICS}")}

    def read(model_id: str) -> dict[str, Any]:
        told = _model(bucket, model_id, listed, current)
        return {**told, "trained_at": trained.get(model_id) or told["trained_at"], "runs": sorted(runs[model_id])}

    return sorted(_each(read, sorted(ids)), key=lambda model: model["trained_at"] or _LATEST, reverse=True)


_LATEST = "~"
"""After every time: what is not trained yet comes first."""


def runs(market: Bucket, model: Bucket) -> list[dict[str, Any]]:
    """Every run, the newest first. None is what is not known, or has not been yet.

    started_at: when its first object was written, in a run's folder when that was copied; sessions: with bars, or
    planned while ingest has not ended; phases: by name the `wall_s` and the `rows` of those that left a result: where
    SageMaker trains, training and promotion leave theirs with the model alone. coverage: share of the known tickers
    that have bars; statuses: how many tickers ended how; stream: how the run's stream fares.
    """
    below: dict[str, dict[str, ObjectInfo]] = defaultdict(dict)
    for info in market.objects(contract.RUNS_PREFIX):
        if info.key.count("/") >= _OF_A_RUN - 1:
            below[_part(info.key, 1)][info.key] = info
    found = _each(lambda run_id: _run(market, model, run_id, below[run_id]), sorted(below))
    return sorted(found, key=lambda run: (run["started_at"], run["run_id"]), reverse=True)


def _model(
    bucket: Bucket, model_id: str, listed: Mapping[str, ObjectInfo], current: Mapping[str, Any]
) -> dict[str, Any]:
    metrics_key = contract.model_key(model_id, contract.MODEL_METRICS)
    metrics = _read(bucket, metrics_key, listed)
    decision = _read(bucket, contract.model_key(model_id, contract.MODEL_DECISION), listed)
    validation, test = metrics.get("validation") or {}, metrics.get("test") or {}
    promoted = decision.get("promote")
    state = "training" if not metrics else {None: "candidate", True: "promoted", False: "refused"}[promoted]
    return {
        "model_id": model_id,
        "state": "current" if current.get("model_id") == model_id else state,
        "trained_at": _iso(listed[metrics_key].modified) if metrics_key in listed else None,
        "skill": validation.get("skill"),
        "test_skill": test.get("skill"),
        "horizons": {minutes: _horizon(told) for minutes, told in (test.get("horizons") or {}).items()},
        "windows": validation.get("windows"),
        "decided_at": decision.get("decided_at"),
        "promoted": promoted,
        "reason": decision.get("reason"),
        "serving": decision.get("serving") or None,
        "serving_skill": decision.get("serving_skill"),
    }


def _horizon(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Of the test days at one horizon, what a history is read for."""
    return {name: metrics.get(name) for name in ("skill", "skill_interval", "significant", "direction", "coverage")}


def _run(market: Bucket, model: Bucket, run_id: str, listed: Mapping[str, ObjectInfo]) -> dict[str, Any]:
    plan = _read(market, contract.plan_key(run_id), listed)
    results = {phase: _read(market, contract.result_key(run_id, phase), listed) for phase in PHASES}
    candidate, decision = _trained(model, run_id)
    ingest, serve = results["ingest"], results["serve"]
    days = ingest.get("days") or [str(session["day"]) for session in plan.get("sessions", ())]
    return {
        "run_id": run_id,
        "started_at": _iso(min(info.modified for info in listed.values())),
        "tickers": sum(len(shard["tickers"]) for shard in plan["shards"]) if plan else None,
        "sessions": len(days) or None,
        "first_day": days[0] if days else None,
        "last_day": days[-1] if days else None,
        "phases": {name: {k: told.get(k) for k in ("wall_s", "rows")} for name, told in results.items() if told},
        "coverage": ingest.get("coverage"),
        "statuses": ingest.get("statuses"),
        "model_id": candidate.get("model_id") or serve.get("model_id"),
        "promoted": decision.get("promote"),
        "served_day": serve.get("day"),
        "predictions": serve.get("predictions"),
        "stream": _read(market, contract.stream_health_key(run_id), listed).get("state"),
    }


def _trained(model: Bucket, run_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The candidate that a run left, and what the gate decided on it."""
    candidate = _read(model, contract.candidate_key(run_id))
    key = contract.model_key(candidate.get("model_id", ""), contract.MODEL_DECISION)
    return candidate, _read(model, key) if candidate else {}


def _each(read: Any, names: Iterable[str]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(read, names))


def _read(bucket: Bucket, key: str, listed: Mapping[str, ObjectInfo] | None = None) -> dict[str, Any]:
    """A JSON object; empty without one, which is not asked for when it was not listed."""
    if listed is not None and key not in listed:
        return {}
    try:
        found: dict[str, Any] = bucket.get_json(key)
    except ObjectMissing:
        return {}
    return found


def _runs_below(make_key: Any, listed: Iterable[str]) -> list[str]:
    """The runs of which there is an object of a kind."""
    folder, _, suffix = str(make_key("*")).partition("*")
    return [key.removeprefix(folder).removesuffix(suffix) for key in listed if key.startswith(folder)]


def _part(key: str, number: int) -> str:
    return key.split("/")[number]


def _iso(when: datetime) -> str:
    return when.isoformat(timespec="seconds")

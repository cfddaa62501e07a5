"""What an execution is asked for: its input, checked and completed before anything is started.

An input is a JSON object; each of its keys may be left out:

    phases            list of ingest, dataset, train, serve; all of them by default
    universe          list of tickers, or text: tickers by commas; dow30, sp100 or sp500 may be among them
    run_id            name of the run; by default the execution's
    dataset_run       the run whose dataset is trained on, for training without the dataset phase
    now               ISO 8601 instant with a time zone at which the run's clock stands
    settings          object of changed settings by group, {"training": {"epochs": 8}}
    training          object of instance_type, instances and processes
    only_in_sessions  true: do nothing when the exchange has no session on the New York day
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from app import contract
from app.clock import clock_from_text
from app.errors import ObjectMissing, SettingsError
from app.ingest.universe import LISTS, parse_universe
from app.rules import RUN_ID_PATTERN, RUN_ID_RULE
from app.sessions import closed_sessions, market_day
from app.storage import Bucket
from app.workflow.names import default_run_id, job_prefix
from app.workflow.schema import Schema, check, merged
from app.workflow.session_table import SessionTable

Order = dict[str, Any]

PHASES: Final = ("ingest", "dataset", "train", "serve")
_SIZE_LIMIT_BYTES = 200_000
"""Step Functions carries 262,144 bytes from state to state; the results of the states come on top of the order."""

_PHASE_LIST: Final = {"type": "array", "minItems": 1, "items": {"enum": list(PHASES)}}
_TEXT: Final = {"type": "string"}


def make_order(
    asked: Any,
    execution: str,
    machine: str,
    defaults: Mapping[str, Any],
    schema: Schema,
    table: SessionTable,
    models: Bucket,
    now: datetime,
    sp500: Callable[[], Iterable[str]],
) -> Order:
    """The order that an execution's input asks for: what all states after the first one read.

    execution, machine: ARNs of the execution and its state machine. defaults: of the deployment: `universe`,
    complete `settings`, `training`, `training_instance_types`. schema: of the settings. now: the clock, unless the
    input names an instant. sp500: gives the tickers of that list; called only when a plan needs it.
    Raises SettingsError, or UniverseError for a ticker, with what is allowed.
    """
    phases = asked_phases(asked)
    check(asked, _input_schema(defaults["training_instance_types"]), "input")
    training = {**defaults["training"], **asked.get("training", {})}
    settings = _settings(asked.get("settings", {}), training, defaults["settings"], schema)
    run_id = _run_id(asked.get("run_id", default_run_id(execution)), "run_id")
    instant = clock_from_text(asked["now"])() if asked.get("now") else now
    planned = phases != {"train"}
    closed = asked.get("only_in_sessions", False) and not _has_session(instant, table)
    order: Order = {
        "run_id": run_id,
        "execution": execution,
        "machine": machine,
        "job_prefix": job_prefix(execution),
        "phases": {"plan": planned, **{phase: phase in phases for phase in PHASES}},
        "closed": closed,
        "universe": _universe(
            asked.get("universe", defaults["universe"]), sp500 if planned and not closed else _not_fetched
        ),
        "now": instant.isoformat(),
        "settings": settings,
        "settings_json": json.dumps(settings, separators=(",", ":")),
        "dataset_run": _dataset_run(asked.get("dataset_run"), run_id, phases, models),
        "training": training,
    }
    _check_size(order, instant, table)
    return order


def asked_phases(asked: Any) -> frozenset[str]:
    """The phases that an input names, all when it names none; SettingsError when it is unreadable."""
    if not isinstance(asked, dict):
        raise SettingsError("the input must be a JSON object, such as {}")
    phases = asked.get("phases", list(PHASES))
    check({"phases": phases}, _object({"phases": _PHASE_LIST}), "input")
    return frozenset(phases)


def _input_schema(instance_types: list[str]) -> Schema:
    count = {"type": "integer", "minimum": 1}
    training: dict[str, Schema] = {
        "instance_type": {"type": "string", "enum": instance_types},
        "instances": {**count, "maximum": 4},
        "processes": {**count, "maximum": 8},
    }
    return _object(
        {
            "phases": _PHASE_LIST,
            "universe": {},  # a list or text
            "run_id": _TEXT,
            "dataset_run": _TEXT,
            "now": _TEXT,
            "settings": {"type": "object"},
            "training": _object(training),
            "only_in_sessions": {"type": "boolean"},
            "Comment": _TEXT,  # the console's sample input has one
        }
    )


def _object(properties: Mapping[str, Schema]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _settings(
    overrides: dict[str, Any], training: Mapping[str, Any], defaults: Mapping[str, Any], schema: Schema
) -> dict[str, Any]:
    """Complete settings, with a rank for each process of each instance."""
    if isinstance(overrides.get("training"), dict) and "ranks" in overrides["training"]:
        raise SettingsError(
            "input settings.training.ranks follows from the instances: set training.instances and training.processes"
        )
    settings = merged(defaults, overrides, schema)
    return merged(settings, {"training": {"ranks": training["instances"] * training["processes"]}}, schema)


def _universe(asked: Any, sp500: Callable[[], Iterable[str]]) -> list[str]:
    if isinstance(asked, str) or (isinstance(asked, list) and all(isinstance(word, str) for word in asked)):
        return list(parse_universe(asked, sp500))
    raise SettingsError(f"input universe must be a list of tickers, or text: tickers by commas, {LISTS}")


def _not_fetched() -> tuple[str, ...]:
    """The S&P 500 for an execution that asks nobody for bars."""
    return ()


def _check_size(order: Order, instant: datetime, table: SessionTable) -> None:
    """Neither nothing to plan nor more than the machine can carry."""
    days = order["settings"]["ingest"]["days"]
    if order["phases"]["plan"] and not closed_sessions(instant, days, table.between):
        raise SettingsError("no trading session has closed in the asked days: raise settings.ingest.days")
    if len(json.dumps(order)) > _SIZE_LIMIT_BYTES:
        raise SettingsError(f"{len(order['universe'])} tickers are too many for one execution: start several")


def _has_session(instant: datetime, table: SessionTable) -> bool:
    day = market_day(instant)
    return bool(table.between(day, day))


def _run_id(asked: str, name: str) -> str:
    if not re.fullmatch(RUN_ID_PATTERN, asked):
        raise SettingsError(f"input {name}={asked!r}: {RUN_ID_RULE}")
    return asked


def _dataset_run(asked: str | None, run_id: str, phases: frozenset[str], models: Bucket) -> str:
    """The run whose dataset is trained on; the run itself where nothing is trained."""
    if asked is not None and ("dataset" in phases or "train" not in phases):
        raise SettingsError("input dataset_run is for training without the dataset phase: leave it out, or the phase")
    if "dataset" in phases or "train" not in phases:
        return run_id
    if asked is None:
        try:
            return str(models.get_json(contract.LATEST_DATASET_KEY)["run_id"])
        except ObjectMissing as exc:
            raise SettingsError("there is no dataset to train on yet: start with phases ingest and dataset") from exc
    spec = contract.dataset_spec_key(_run_id(asked, "dataset_run"))
    if spec not in models.keys(spec):  # to list them needs no right to read datasets
        raise SettingsError(f"run {asked} has no dataset: name another in dataset_run, or leave it out for the latest")
    return asked

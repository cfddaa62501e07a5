"""The Lambdas' code: the handlers, what they import of `app`, and the data made while synthesising.

Nothing third-party: the runtime's boto3 is enough. The exchange calendar and the schema of the settings come from
libraries that a Lambda does not have, so they travel as JSON; New York's time zone, which its system need not have,
as a file too.
"""

from __future__ import annotations

import importlib.resources
import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

from app import contract
from app.sessions import sessions_between
from app.settings import Settings
from app.workflow.session_table import to_table
from infra.root import ROOT
from infra.settings import Deployment, training_instance_types

ZONES = "/var/task/zoneinfo:/usr/share/zoneinfo"
"""For PYTHONTZPATH: the staged zone where Lambda unpacks it, then the system's."""

CALENDAR = (date(2025, 1, 1), date(2035, 12, 31))
"""Days that the calendar of a deployment covers; later ones are refused with a sentence."""

_MODULES = (
    "__init__.py",
    "clock.py",
    "contract.py",
    "errors.py",
    "metrics.py",
    "rules.py",
    "sessions.py",
    "storage.py",
    "ingest/__init__.py",
    "ingest/coverage.py",
    "ingest/plan.py",
    "ingest/universe.py",
    "training/__init__.py",
    "training/gate.py",
    "workflow",
)


def stage(folder: Path, deployment: Deployment) -> None:
    """Put all that the Lambdas need into `folder`."""
    for module in _MODULES:
        _copy(ROOT / "app" / module, folder / "app" / module)
    for handler in sorted((ROOT / "lambdas").glob("*.py")):
        _copy(handler, folder / handler.name)
    zone = Path("zoneinfo", contract.EXCHANGE_TIMEZONE)
    with importlib.resources.as_file(importlib.resources.files("tzdata")) as tzdata:
        _copy(tzdata / zone, folder / zone)
    for name, value in data_files(deployment).items():
        (folder / name).write_text(json.dumps(value, sort_keys=True), encoding="utf-8")


def data_files(deployment: Deployment) -> dict[str, Any]:
    """What the handlers read beside them."""
    return {
        "defaults.json": defaults(deployment),
        "settings_schema.json": Settings.model_json_schema(),
        "sessions.json": to_table(sessions_between(*CALENDAR)),
    }


def defaults(deployment: Deployment) -> dict[str, Any]:
    """What an execution does that is started with {}."""
    training = deployment.training
    return {
        "universe": deployment.universe,
        "settings": deployment.settings.model_dump(mode="json"),
        "training": {
            "instance_type": training.instance_type,
            "instances": training.instances,
            "processes": training.processes,
        },
        "training_instance_types": training_instance_types(),
        "fleet": {
            "max_instances": deployment.ingestion.max_instances,
            "jobs_per_instance": deployment.ingestion.jobs_per_instance,
        },
    }


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, target)

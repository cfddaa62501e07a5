"""The models that were trained, what the gate decided on each, and which one serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app import contract
from app.storage import Bucket, ObjectInfo
from app.training.checkpoint import read_checkpoint
from dashboard.objects import Objects

_CANDIDATES: Final = contract.candidate_key("").removesuffix(".json")
_NO_MODELS: Final = ("candidates", "begun")


@dataclass(frozen=True)
class Judged:
    """A split's metrics that are shown. by_horizon: minutes, then MAE and MAE of persistence in bp, and the skill."""

    windows: int
    skill: float
    by_horizon: Mapping[int, Mapping[str, float]]


@dataclass(frozen=True)
class Metrics:
    """Of a model's metrics what is shown."""

    validation: Judged
    test: Judged
    history: Sequence[Mapping[str, float]]
    best_epoch: int


@dataclass(frozen=True)
class Model:
    """A model that was published. run_id: that trained it, empty when another candidate took its place.

    promoted: what the gate decided, None before it did; reason: in its own words.
    """

    model_id: str
    run_id: str
    trained_at: str
    decided_at: str
    promoted: bool | None
    reason: str
    rival_skill: float | None
    metrics: Metrics | None
    card: str

    @property
    def at(self) -> str:
        """The last that happened to it."""
        return self.decided_at or self.trained_at


@dataclass(frozen=True)
class Progress:
    """A training that goes on. history: of its epochs that are over; running: mean of the ranks' losses, by step."""

    history: Sequence[Mapping[str, float]]
    running: Sequence[float]


@dataclass(frozen=True)
class Models:
    """All models, the newest first. current: id of the one that serves, empty without one."""

    rows: Sequence[Model] = ()
    current: str = ""
    published_at: str = ""

    def find(self, model_id: str) -> Model | None:
        """The model of this name."""
        return next((model for model in self.rows if model.model_id == model_id), None)


def read_metrics(told: Any) -> Metrics:
    """A model's metrics.json."""
    return Metrics(
        _judged(told["validation"]), _judged(told["test"]), list(told["history"]), int(told.get("best_epoch", 0))
    )


def read_models(objects: Objects, infos: Mapping[str, ObjectInfo]) -> Models:
    """All of the model bucket's models. infos: what lies below contract.MODELS_PREFIX."""
    trained: dict[str, tuple[str, str]] = {}
    for key in infos:
        if key.startswith(_CANDIDATES) and (found := objects.json(infos[key], _candidate)):
            model_id, trained_at = found
            trained[model_id] = key.removeprefix(_CANDIDATES).removesuffix(".json"), trained_at
    below = (key.removeprefix(contract.MODELS_PREFIX).partition("/") for key in infos)
    ids = dict.fromkeys(name for name, slash, _ in below if slash and name not in _NO_MODELS)
    found_rows = (_model(objects, infos, model_id, *trained.get(model_id, ("", ""))) for model_id in ids)
    rows = sorted((row for row in found_rows if row), key=lambda row: row.at, reverse=True)
    return Models(rows, *(objects.json(infos.get(contract.CURRENT_MODEL_KEY), _pointer) or ("", "")))


def read_begun(objects: Objects, infos: Mapping[str, ObjectInfo], run_id: str) -> tuple[str, int | None] | None:
    """The model that the run trains at this moment, and of how many epochs; None when it trains none."""
    return objects.json(
        infos.get(contract.begun_key(run_id)),
        lambda told: (str(told["model_id"]), told.get("settings", {}).get("epochs")),
    )


def read_progress(objects: Objects, infos: Mapping[str, ObjectInfo], model_id: str) -> Progress | None:
    """How far a model's training was when it wrote its newest checkpoint; None before the first one."""
    prefix = contract.checkpoints_prefix(model_id)
    keys = [key for key in infos if key.startswith(prefix)]
    return objects.read(infos[keys[-1]], _progress) if keys else None


def _progress(models: Bucket, key: str) -> Progress:
    found = read_checkpoint(models, key)
    return Progress(found.history, [float(loss) for loss in found.losses.mean(axis=0)] if found.losses.size else [])


def _candidate(told: Any) -> tuple[str, str]:
    return str(told["model_id"]), str(told["trained_at"])


def _pointer(told: Any) -> tuple[str, str]:
    return str(told["model_id"]), str(told["published_at"])


def _model(
    objects: Objects, infos: Mapping[str, ObjectInfo], model_id: str, run_id: str, trained_at: str
) -> Model | None:
    """None while it is being trained."""
    metrics, card, decided = (
        infos.get(contract.model_key(model_id, name))
        for name in (contract.MODEL_METRICS, contract.MODEL_CARD, contract.MODEL_DECISION)
    )
    decision: Mapping[str, Any] = objects.json(decided, dict) or {}
    if metrics is None and not decision:
        return None
    return Model(
        model_id=model_id,
        run_id=run_id,
        trained_at=trained_at,
        decided_at=str(decision.get("decided_at", "")),
        promoted=bool(decision["promote"]) if "promote" in decision else None,
        reason=str(decision.get("reason", "")),
        rival_skill=decision.get("serving_skill"),
        metrics=objects.json(metrics, read_metrics),
        card=objects.read(card, lambda bucket, key: bucket.get(key).decode()) or "",
    )


def _judged(told: Mapping[str, Any]) -> Judged:
    horizons = {
        int(minutes): {name: float(of[name]) for name in ("mae_bp", "mae_persistence_bp", "skill")}
        for minutes, of in told.get("horizons", {}).items()
    }
    return Judged(int(told["windows"]), float(told["skill"]), horizons)

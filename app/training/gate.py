"""Between training and serving: a model takes over when it is no worse than "the price stays" and what serves.

Standard library and boto3 alone: the same functions run in the gate's and the promotion's Lambda.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from app import contract
from app.errors import ObjectChanged, ObjectMissing, TrainingError
from app.storage import JSON_TYPE, Bucket, to_json

_SAME = 1e-9
"""Skills that differ by less are the same."""


@dataclass(frozen=True)
class Decision:
    """What the gate decided on a run's candidate, and why.

    skill: 1 - MSE / MSE of persistence on the validation days, over `windows` windows. serving: id of the
    model that is current, empty when there is none. serving_skill: that model's skill where both forecast, None where
    it was not compared.
    """

    promote: bool
    reason: str
    model_id: str
    skill: float
    windows: int
    serving: str
    serving_skill: float | None

    def to_json(self) -> dict[str, Any]:
        """As the Lambda answers."""
        return asdict(self)


def decide(models: Bucket, run_id: str, min_skill: float, now: datetime) -> Decision:
    """Judge the model that the run trained, and store the decision beside it.

    Promoted is what has on the validation days a skill of at least `min_skill`, and no less than the current model
    has on the same windows and horizons; where the two share none, the first is enough. A candidate that was not
    compared with the model that is current by now is not promoted. Raises ObjectMissing when the run left no
    candidate and TrainingError when its metrics tell no skill.
    """
    model_id = str(models.get_json(contract.candidate_key(run_id))["model_id"])
    key = contract.model_key(model_id, contract.MODEL_METRICS)
    metrics, where = models.get_json(key), f"s3://{models.name}/{key}"
    skill = _number(metrics, ("validation", "skill"), where, model_id)
    windows = int(_number(metrics, ("validation", "windows"), where, model_id))
    serving = _serving(models)
    passes = skill >= min_skill
    first = (
        f"its skill over persistence, {skill:+.6g} on {windows:,} validation windows,"
        f" is {'not ' if passes else ''}below gate.min_skill={min_skill:g}"
    )
    holds, second, serving_skill = _compare(metrics, model_id, serving, where)
    decision = Decision(passes and holds, f"{first}; {second}", model_id, skill, windows, serving, serving_skill)
    models.put_json(
        contract.model_key(model_id, contract.MODEL_DECISION),
        {**decision.to_json(), "decided_at": now.isoformat(timespec="seconds")},
    )
    return decision


def _compare(metrics: Any, model_id: str, serving: str, where: str) -> tuple[bool, str, float | None]:
    """Whether the candidate is no worse than the model that serves; why; that model's skill if it was compared."""
    if not serving:
        return True, "no model serves yet", None
    if serving == model_id:
        return True, "it serves already", None
    compared = metrics.get("current") or {}
    if compared.get("model_id") != serving:
        other = f"was compared with {compared['model_id']}" if "model_id" in compared else "was compared with no model"
        return False, f"model {serving} serves now and it {other}: train the run again", None
    if "reason" in compared:
        return True, f"it was not compared with model {serving}, which serves: {compared['reason']}", None
    ours, theirs = (_number(metrics, ("current", name), where, model_id) for name in ("candidate_skill", "skill"))
    holds = ours >= theirs - _SAME
    higher = "no higher" if holds else "higher"
    told = f"that of model {serving}, which serves, is {higher}, {theirs:+.6g}"
    validation, minutes = metrics["validation"], compared.get("horizons_min", ())
    if (compared["windows"], len(minutes)) == (validation["windows"], len(validation.get("horizons", ()))):
        return holds, f"{told} on the same windows", theirs
    shared = f"{', '.join(map(str, minutes))} min on the {compared['windows']:,} windows that both take"
    return holds, f"{told} against {ours:+.6g}, both for {shared}", theirs


def promote(models: Bucket, run_id: str, decided: str, now: datetime, *, serving: str | None = None) -> dict[str, Any]:
    """Move `models/current.json` to the model that the run trained; returns what it holds then.

    decided: id of the model on which the gate decided; serving: the one with which it was compared, empty when there
    was none; None is not to ask. A pointer that names the decided model already is left as it is, and so is one that
    somebody else moves at the same time. Raises ObjectMissing when the run left no candidate and TrainingError, the
    pointer unmoved, when the candidate or what serves is another one meanwhile or one of the candidate's files is
    missing.
    """
    candidate = models.get_json(contract.candidate_key(run_id))
    model_id, sha256 = candidate["model_id"], candidate["sha256"]
    if model_id != decided:
        raise TrainingError(
            f"the gate decided on model {decided}, but the candidate of run {run_id} is {model_id} now: it is not"
            " promoted; let the gate decide again"
        )
    missing = [name for name in contract.MODEL_FILES if not models.exists(contract.model_key(model_id, name))]
    if missing:
        raise TrainingError(f"model {model_id} lacks {', '.join(missing)}: it is not promoted; train the run again")
    held, tag = _pointer(models)
    if _names(held, candidate):
        return held
    if serving is not None and held and held["model_id"] not in (serving, model_id):
        raise TrainingError(
            f"model {held['model_id']} has been promoted since the gate decided on {model_id}: it is not promoted;"
            " train the run again"
        )
    pointer = {"model_id": model_id, "published_at": now.isoformat(timespec="seconds"), "sha256": sha256}
    try:
        models.put(contract.CURRENT_MODEL_KEY, to_json(pointer), JSON_TYPE, replaces=tag)
    except (ObjectChanged, ObjectMissing) as exc:
        held, _ = _pointer(models)
        if _names(held, candidate):  # by this very call, whose first answer was lost
            return held
        raise TrainingError(
            f"{contract.CURRENT_MODEL_KEY} was written by another promotion at the same moment, and names model"
            f" {held.get('model_id', 'none')}: model {model_id} is not promoted; promote it again"
        ) from exc
    return pointer


def _number(metrics: Any, path: tuple[str, str], where: str, model_id: str) -> float:
    """A finite number of a model's metrics; TrainingError where they hold none."""
    try:
        found = float(metrics[path[0]][path[1]])
    except (KeyError, TypeError, ValueError) as exc:
        raise TrainingError(
            f"{where} tells no number for {'.'.join(path)}: model {model_id} is not promoted; train the run again"
        ) from exc
    if not math.isfinite(found):
        raise TrainingError(f"{'.'.join(path)} of model {model_id} is {found}: it is not promoted; train the run again")
    return found


def _serving(models: Bucket) -> str:
    return str(_pointer(models)[0].get("model_id", ""))


def _pointer(models: Bucket) -> tuple[dict[str, Any], str]:
    """What `models/current.json` holds and its ETag, both empty when it is not there."""
    try:
        body, tag = models.get_tagged(contract.CURRENT_MODEL_KEY)
    except ObjectMissing:
        return {}, ""
    return json.loads(body), tag


def _names(pointer: dict[str, Any], candidate: dict[str, Any]) -> bool:
    """Whether the pointer leads to the candidate's very bytes."""
    return all(pointer.get(name) == candidate[name] for name in ("model_id", "sha256"))

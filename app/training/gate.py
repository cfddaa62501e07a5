"""Between training and serving: a model takes over when it beats the forecast that the price stays.

Standard library and boto3 alone: the same functions run in the gate's and the promotion's Lambda.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from app import contract
from app.errors import ObjectMissing, TrainingError
from app.storage import Bucket


@dataclass(frozen=True)
class Decision:
    """What the gate decided on a run's candidate, and why.

    skill: 1 - MSE / MSE of persistence on the validation days, over `windows` windows. serving: id of the
    model that is current, empty when there is none.
    """

    promote: bool
    reason: str
    model_id: str
    skill: float
    windows: int
    serving: str

    def to_json(self) -> dict[str, Any]:
        """As the Lambda answers."""
        return asdict(self)


def decide(models: Bucket, run_id: str, min_skill: float, now: datetime) -> Decision:
    """Judge the model that the run trained, and store the decision beside it.

    Promoted is what has a skill above `min_skill` on the validation days. Raises ObjectMissing when the run
    left no candidate and TrainingError when its metrics tell no skill.
    """
    model_id = str(models.get_json(contract.candidate_key(run_id))["model_id"])
    skill, windows = _validation(models, model_id)
    promote = skill > min_skill
    decision = Decision(
        promote=promote,
        reason=f"its skill over persistence, {skill:+.6g} on {windows:,} validation windows,"
        f" is {'above' if promote else 'not above'} gate.min_skill={min_skill:g}",
        model_id=model_id,
        skill=skill,
        windows=windows,
        serving=_serving(models),
    )
    models.put_json(
        contract.model_key(model_id, contract.MODEL_DECISION),
        {**decision.to_json(), "decided_at": now.isoformat(timespec="seconds")},
    )
    return decision


def promote(models: Bucket, run_id: str, decided: str, now: datetime) -> dict[str, Any]:
    """Move `models/current.json` to the model that the run trained; returns what it holds then.

    decided: id of the model on which the gate decided. A pointer that names this very model already is left as it
    is. Raises ObjectMissing when the run left no candidate and TrainingError, the pointer unmoved, when the
    candidate is another one meanwhile or one of its files is missing.
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
    held = _pointer(models)
    if (held.get("model_id"), held.get("sha256")) == (model_id, sha256):
        return held
    pointer = {"model_id": model_id, "published_at": now.isoformat(timespec="seconds"), "sha256": sha256}
    models.put_json(contract.CURRENT_MODEL_KEY, pointer)
    return pointer


def _validation(models: Bucket, model_id: str) -> tuple[float, int]:
    """Skill on the validation days, and over how many windows."""
    key = contract.model_key(model_id, contract.MODEL_METRICS)
    metrics = models.get_json(key)
    try:
        skill, windows = float(metrics["validation"]["skill"]), int(metrics["validation"]["windows"])
    except (KeyError, TypeError, ValueError) as exc:
        raise TrainingError(
            f"s3://{models.name}/{key} tells no skill on the validation days: model {model_id} is not promoted;"
            " train the run again"
        ) from exc
    if not math.isfinite(skill):
        raise TrainingError(f"the skill of model {model_id} is {skill}: it is not promoted; train the run again")
    return skill, windows


def _serving(models: Bucket) -> str:
    return str(_pointer(models).get("model_id", ""))


def _pointer(models: Bucket) -> dict[str, Any]:
    """What `models/current.json` holds, nothing when it is not there."""
    try:
        pointer: dict[str, Any] = models.get_json(contract.CURRENT_MODEL_KEY)
    except ObjectMissing:
        return {}
    return pointer

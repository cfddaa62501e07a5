"""A model becomes a candidate whole: its files first, the note that names it last."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from app import contract
from app.dataset.spec import Spec
from app.errors import ObjectMissing, TrainingError
from app.settings import Settings
from app.storage import Bucket, fingerprint, to_json
from app.training.card import model_card

_OF_THE_JOB = {"checkpoint_steps", "checkpoints_kept", "stall_timeout_s", "timeout_s", "nodes_timeout_s"}
"""Settings that say how a job runs, not what becomes of it."""


def make_model_id(dataset_run: str, spec: Spec, settings: Settings) -> str:
    """The same dataset and settings always give the same model id. dataset_run: whose dataset it is."""
    return f"{dataset_run}-{fingerprint(spec.fingerprint.encode(), to_json(what_trains(settings)))[:8]}"


def what_trains(settings: Settings) -> dict[str, Any]:
    """The settings on which the trained weights depend."""
    return settings.training.model_dump(mode="json", exclude=_OF_THE_JOB)


def begin_training(models: Bucket, run_id: str, model_id: str, about: Mapping[str, Any]) -> None:
    """Note which model the run trains, until it is published.

    about: its dataset, its settings and its ranks. Raises TrainingError when the run has begun another model and not
    ended it: it would be left half trained, and nobody be told.
    """
    key = contract.begun_key(run_id)
    try:
        begun = models.get_json(key)
    except ObjectMissing:
        begun = {"model_id": model_id, **about}
    changed = [name for name, value in about.items() if begun.get(name) != value]
    if begun["model_id"] != model_id or changed:
        raise TrainingError(
            f"run {run_id} has begun to train model {begun['model_id']}, and its {' and '.join(changed) or 'model'}"
            f" changed since: go back to them, use another run id, or delete s3://{models.name}/{key} to start anew"
        )
    models.put_json(key, {"model_id": model_id, **about})


def publish_model(
    models: Bucket,
    run_id: str,
    model_id: str,
    spec: Spec,
    settings: Settings,
    files: Mapping[str, bytes],
    metrics: Any,
    days: Mapping[str, Sequence[str]],
    now: datetime,
) -> None:
    """Write every file of the model, then make it the candidate of its run; the gate decides what becomes of it.

    files: MODEL_KERAS and MODEL_ONNX; days: New York dates of each split. Raises TrainingError, with nothing
    written, when a file is missing.
    """
    about = settings.model_dump(mode="json")
    bodies = {
        **files,
        contract.MODEL_SPEC: to_json({"model_id": model_id, **spec.to_json(), "settings": about}),
        contract.MODEL_METRICS: to_json(metrics),
        contract.MODEL_CARD: model_card(model_id, spec.to_json(), about, metrics, days).encode(),
    }
    if missing := set(contract.MODEL_FILES) - set(bodies):
        raise TrainingError(f"model {model_id} lacks {', '.join(sorted(missing))}: it is not published")
    for name in contract.MODEL_FILES:
        models.put(contract.model_key(model_id, name), bodies[name])
    models.put_json(
        contract.candidate_key(run_id),
        {
            "model_id": model_id,
            "trained_at": now.isoformat(timespec="seconds"),
            "sha256": {name: hashlib.sha256(bodies[name]).hexdigest() for name in contract.MODEL_FILES},
        },
    )
    models.delete(contract.begun_key(run_id))

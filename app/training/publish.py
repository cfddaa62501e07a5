"""A model becomes a candidate whole: its files first, the note that names it last."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app import contract
from app.dataset.spec import Spec
from app.errors import TrainingError
from app.settings import Settings
from app.storage import Bucket, fingerprint, to_json


def make_model_id(dataset_run: str, spec: Spec, settings: Settings) -> str:
    """The same dataset and settings always give the same model id. dataset_run: whose dataset it is."""
    return f"{dataset_run}-{fingerprint(spec.fingerprint.encode(), to_json(settings.training.model_dump()))[:8]}"


def publish_model(
    models: Bucket,
    run_id: str,
    model_id: str,
    spec: Spec,
    settings: Settings,
    files: Mapping[str, bytes],
    metrics: Any,
    now: datetime,
) -> None:
    """Write every file of the model, then make it the candidate of its run; the gate decides what becomes of it.

    files: MODEL_KERAS and MODEL_ONNX. Raises TrainingError, with nothing written, when one is missing.
    """
    bodies = {
        **files,
        contract.MODEL_SPEC: to_json(
            {"model_id": model_id, **spec.to_json(), "settings": settings.model_dump(mode="json")}
        ),
        contract.MODEL_METRICS: to_json(metrics),
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

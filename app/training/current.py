"""The model that serves, judged on the candidate's validation windows, so that the gate can compare the two."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from app import contract
from app.dataset.features import FloatArray
from app.dataset.forecast import MEAN, OUTPUTS
from app.dataset.spec import Spec
from app.dataset.windows import WindowSet, window_set
from app.errors import ObjectMissing
from app.storage import Bucket
from app.training.evaluate import mean_skill

_CHUNK = 1024  # larger calls cost memory, not time


def compare_current(
    models: Bucket,
    read_table: Callable[[], pa.Table],
    spec: Spec,
    max_filled_share: float,
    candidate_skill: float,
) -> dict[str, Any] | None:
    """What metrics.json holds under `current`; None when no model serves.

    read_table: gives the candidate's validation rows, all stored columns; spec, max_filled_share: how the candidate
    cuts them into windows; candidate_skill: on these. The current model sees the same windows with its own features
    and scalers. One that looks back or ahead by other minutes, or cannot be asked, gets a reason instead of a skill.
    """
    try:
        model_id = str(models.get_json(contract.CURRENT_MODEL_KEY)["model_id"])
    except ObjectMissing:
        return None
    try:
        skill, windows = _skill(models, model_id, read_table(), spec, max_filled_share)
    except (ObjectMissing, _NotAsked) as exc:
        return {"model_id": model_id, "reason": str(exc)}
    except Exception as exc:  # a stored model may be broken in any way, and must not end a training
        return {"model_id": model_id, "reason": f"it cannot be asked: {type(exc).__name__}: {exc}"}
    return {"model_id": model_id, "skill": skill, "windows": windows, "candidate_skill": candidate_skill}


class _NotAsked(Exception):
    """Why a model's forecasts are not compared."""


def _skill(models: Bucket, model_id: str, table: pa.Table, spec: Spec, max_filled_share: float) -> tuple[float, int]:
    """Mean skill of a stored model on the rows, and on how many windows."""
    stored = models.get_json(contract.model_key(model_id, contract.MODEL_SPEC))
    if reason := _difference(stored, spec, table):
        raise _NotAsked(reason)
    theirs = Spec.from_json(stored)
    windows = window_set(_own_volume(table, theirs), theirs, max_filled_share)
    forecast = _forecast(models.get(contract.model_key(model_id, contract.MODEL_ONNX)), windows)
    if forecast.shape[1:] != (len(spec.horizons_min), OUTPUTS):
        raise _NotAsked(f"its forecasts have the shape {forecast.shape[1:]}")
    skill = mean_skill(forecast[..., MEAN] * windows.target_std, windows.last_price, windows.future_price)
    if not np.isfinite(skill):
        raise _NotAsked("its forecasts are not finite")
    return skill, len(windows)


def _difference(stored: dict[str, Any], spec: Spec, table: pa.Table) -> str:
    """Why a model of this spec cannot be asked about the candidate's windows; empty when it can."""
    for name, ours in (("window_min", spec.window_min), ("horizons_min", list(spec.horizons_min))):
        if stored.get(name) != ours:
            return f"its {name} is {stored.get(name)}, the candidate's {ours}"
    if unknown := [name for name in stored["features"] if name not in table.schema.names]:
        return f"it takes {', '.join(unknown)}, which the dataset does not hold"
    return ""


def _own_volume(table: pa.Table, spec: Spec) -> pa.Table:
    """The rows with volume seen against the current model's own profile, as it is when it serves."""
    if contract.FEATURE_RELATIVE_VOLUME not in spec.features:
        return table
    number = table[contract.FEATURE_SESSION_MINUTE].to_numpy().astype(np.int64)
    usual = np.array(spec.volume_profile, np.float64)[number]
    place = table.schema.get_field_index(contract.FEATURE_RELATIVE_VOLUME)
    relative = (table[contract.FEATURE_VOLUME].to_numpy() - usual).astype(np.float32)
    return table.set_column(place, table.schema.field(place), pa.array(relative))


def _forecast(onnx: bytes, windows: WindowSet) -> FloatArray:
    """Forecasts of all windows in units of target_std: float64 (n, ...)."""
    import onnxruntime  # noqa: PLC0415  heavy, and not wanted where nothing serves yet

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    chunks = (windows.inputs(slice(first, first + _CHUNK)) for first in range(0, len(windows), _CHUNK))
    parts = [session.run(None, {name: chunk})[0] for chunk in chunks]
    forecast: FloatArray = np.concatenate(parts).astype(np.float64)
    return forecast

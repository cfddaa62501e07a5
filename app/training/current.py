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
from app.dataset.windows import Index, WindowSet, window_set
from app.errors import ObjectMissing
from app.storage import Bucket
from app.training.evaluate import mean_skill

_CHUNK = 1024  # larger calls cost memory, not time


def compare_current(
    models: Bucket,
    read_table: Callable[[], pa.Table],
    spec: Spec,
    max_filled_share: float,
    returns: FloatArray,
) -> dict[str, Any] | None:
    """What metrics.json holds under `current`; None when no model serves.

    read_table: gives the candidate's validation rows, all stored columns; spec, max_filled_share: how the candidate
    cuts them into windows; returns: (n, horizons) log returns that it forecasts on these. The current model is asked
    at the same minutes, with its own features, scalers and minutes to look back. Both are measured on the horizons
    that they share, at the minutes at which each has a window. One that shares none, or cannot be asked, gets a reason
    instead of a skill.
    """
    try:
        model_id = str(models.get_json(contract.CURRENT_MODEL_KEY)["model_id"])
    except ObjectMissing:
        return None
    try:
        compared = _compared(models, model_id, read_table(), spec, max_filled_share, returns)
    except (ObjectMissing, _NotAsked) as exc:
        return {"model_id": model_id, "reason": str(exc)}
    except Exception as exc:  # a stored model may be broken in any way, and must not end a training
        return {"model_id": model_id, "reason": f"it cannot be asked: {type(exc).__name__}: {exc}"}
    return {"model_id": model_id, **compared}


class _NotAsked(Exception):
    """Why a model's forecasts are not compared."""


def _compared(
    models: Bucket, model_id: str, table: pa.Table, spec: Spec, max_filled_share: float, returns: FloatArray
) -> dict[str, Any]:
    """Mean skills of a stored model and of the candidate, and where they were measured."""
    stored = models.get_json(contract.model_key(model_id, contract.MODEL_SPEC))
    shared = [minutes for minutes in spec.horizons_min if minutes in stored.get("horizons_min", ())]
    if not shared:
        told = stored.get("horizons_min")
        raise _NotAsked(f"its horizons_min is {told}, the candidate's {list(spec.horizons_min)}: none is shared")
    if unknown := [name for name in stored["features"] if name not in table.schema.names]:
        raise _NotAsked(f"it takes {', '.join(unknown)}, which the dataset does not hold")
    theirs = Spec.from_json(stored)
    windows = window_set(_own_volume(table, theirs), theirs.of_horizons(shared), max_filled_share)
    ours, own = _both(window_set(table, spec, max_filled_share), windows)
    if not len(own):
        raise _NotAsked(f"no minute ends a window of its window_min, {theirs.window_min}, and one of the candidate's")
    forecast = _forecast(models.get(contract.model_key(model_id, contract.MODEL_ONNX)), windows, own)
    if forecast.shape[1:] != (len(theirs.horizons_min), OUTPUTS):
        raise _NotAsked(f"its forecasts have the shape {forecast.shape[1:]}")
    places = [theirs.horizons_min.index(minutes) for minutes in shared]
    prices = windows.last_price[own], windows.future_price[own]
    skill = mean_skill(forecast[:, places, MEAN] * windows.target_std[own], *prices)
    if not np.isfinite(skill):
        raise _NotAsked("its forecasts are not finite")
    chosen = returns[ours][:, [spec.horizons_min.index(minutes) for minutes in shared]]
    measured = {"windows": len(own), "horizons_min": shared}
    return {"skill": skill, "candidate_skill": mean_skill(chosen, *prices), **measured}


def _both(ours: WindowSet, theirs: WindowSet) -> tuple[Index, Index]:
    """Numbers of the windows, in two sets of the same rows, that end with the same minute."""
    ends, their_ends = ours.starts + ours.window, theirs.starts + theirs.window
    _, mine, own = np.intersect1d(ends, their_ends, assume_unique=True, return_indices=True)
    return mine, own


def _own_volume(table: pa.Table, spec: Spec) -> pa.Table:
    """The rows with volume seen against the current model's own profile, as it is when it serves."""
    if contract.FEATURE_RELATIVE_VOLUME not in spec.features:
        return table
    number = table[contract.FEATURE_SESSION_MINUTE].to_numpy().astype(np.int64)
    usual = np.array(spec.volume_profile, np.float64)[number]
    place = table.schema.get_field_index(contract.FEATURE_RELATIVE_VOLUME)
    relative = (table[contract.FEATURE_VOLUME].to_numpy() - usual).astype(np.float32)
    return table.set_column(place, table.schema.field(place), pa.array(relative))


def _forecast(onnx: bytes, windows: WindowSet, chosen: Index) -> FloatArray:
    """Forecasts of the chosen windows in units of target_std: float64 (n, ...)."""
    import onnxruntime  # noqa: PLC0415  heavy, and not wanted where nothing serves yet

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    chunks = (windows.inputs(chosen[first : first + _CHUNK]) for first in range(0, len(chosen), _CHUNK))
    parts = [session.run(None, {name: chunk})[0] for chunk in chunks]
    forecast: FloatArray = np.concatenate(parts).astype(np.float64)
    return forecast

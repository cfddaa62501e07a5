"""Forecasts of many windows at once, with ONNX Runtime: serving needs no TensorFlow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnxruntime

from app import contract
from app.dataset.features import FloatArray, Rows, scale
from app.dataset.forecast import OUTPUTS, calibrated
from app.dataset.spec import Spec
from app.errors import ObjectMissing, ServingError
from app.serving.stream_bucket import stream_bucket
from app.storage import Bucket

_CHUNK = 1024  # larger calls cost memory, not time


class Scorer:
    """One model, loaded. One thread: Spark already runs one worker a core."""

    def __init__(self, model_id: str, onnx: bytes, spec: Spec) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.model_id = model_id
        self.spec = spec
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def predict(self, tickers: Sequence[str], rows: Rows) -> FloatArray:
        """Log returns over each horizon, mean and calibrated quantiles: float64 (n, horizons, 4).

        tickers: (n,); rows: float32 (n, window, features) as app.dataset.features gives them, not scaled. The
        last axis is that of app.dataset.forecast.
        """
        mean, std, target_std = self.spec.scaling(tickers)
        inputs = scale(rows, mean[:, None, :], std[:, None, :])
        parts = [
            self._session.run(None, {self._input: inputs[first : first + _CHUNK]})[0]
            for first in range(0, len(inputs), _CHUNK)
        ]
        nothing = np.empty((0, len(self.spec.horizons_min), OUTPUTS), np.float32)
        return calibrated(np.concatenate([nothing, *parts]), self.spec.calibration) * target_std[:, :, None]


@dataclass(frozen=True)
class Promoted:
    """What `models/current.json` names. sha256: of the model's files, by name, as far as the promotion knew them."""

    model_id: str
    sha256: Mapping[str, str]


def promoted_model(models: Bucket) -> Promoted:
    """The model that is to serve; ServingError when none is named."""
    try:
        pointer = models.get_json(contract.CURRENT_MODEL_KEY)
        return Promoted(str(pointer["model_id"]), dict(pointer.get("sha256", {})))
    except ObjectMissing:
        raise ServingError(
            f"no model has been promoted: s3://{models.name}/{contract.CURRENT_MODEL_KEY} does not exist:"
            " run `stockflow promote`, lower gate.min_skill or train more"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ServingError(f"{contract.CURRENT_MODEL_KEY} names no model: promote one again") from exc


def read_spec(models: Bucket, model_id: str) -> Spec:
    """The spec stored beside a model; ServingError when it is another version's, or asks for unknown features."""
    return _spec(models.get(contract.model_key(model_id, contract.MODEL_SPEC)), model_id)


def _spec(body: bytes, model_id: str) -> Spec:
    try:
        spec = Spec.from_json(json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ServingError(
            f"model {model_id} was trained by another version of this code:"
            " serve it with the version that trained it, or train again"
        ) from exc
    if not set(spec.features) <= set(contract.FEATURES):
        raise ServingError(
            f"model {model_id} takes {', '.join(spec.features)}, this code makes {', '.join(contract.FEATURES)}:"
            " serve it with the version that trained it, or train again"
        )
    return spec


def checked_scorer(models: Bucket, promoted: Promoted) -> Scorer:
    """A model that has not served yet, tried on a window.

    ObjectMissing when it lacks a file, and ServingError when one is not what was promoted or cannot be read, or the
    forecasts are none.
    """
    model_id = promoted.model_id
    bodies = {
        name: models.get(contract.model_key(model_id, name)) for name in (contract.MODEL_ONNX, contract.MODEL_SPEC)
    }
    for name, body in bodies.items():
        if promoted.sha256.get(name) not in (None, hashlib.sha256(body).hexdigest()):
            raise ServingError(f"{contract.model_key(model_id, name)} is not what was promoted")
    spec = _spec(bodies[contract.MODEL_SPEC], model_id)
    try:
        scorer = Scorer(model_id, bodies[contract.MODEL_ONNX], spec)
        found = scorer.predict([""], np.zeros((1, spec.window_min, len(spec.features)), np.float32))
    except Exception as exc:  # ONNX Runtime has errors of its own for each way in which a file may be broken
        raise ServingError(f"it cannot forecast: {type(exc).__name__}: {str(exc).splitlines()[0]}") from exc
    if found.shape != (1, len(spec.horizons_min), OUTPUTS) or not np.isfinite(found).all():
        raise ServingError(f"its forecasts are no numbers, or have the shape {found.shape}")
    return scorer


@lru_cache(maxsize=2)
def load_scorer(model_bucket: str, model_id: str) -> Scorer:
    """The scorer of one model, loaded once a process."""
    models = stream_bucket(model_bucket)
    onnx = models.get(contract.model_key(model_id, contract.MODEL_ONNX))
    return Scorer(model_id, onnx, read_spec(models, model_id))

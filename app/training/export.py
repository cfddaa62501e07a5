"""A trained network as files: Keras for training on, ONNX for serving without TensorFlow."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from app.dataset.features import Rows
from app.errors import TrainingError

AGREEMENT = 1e-5
"""Largest difference allowed between Keras and ONNX forecasts, in units of target_std."""


def export_model(model: Any, sample: Rows) -> tuple[bytes, bytes]:
    """The model as (Keras bytes, ONNX bytes).

    sample: float32 (n, window, features), forecast with both; TrainingError when they disagree.
    """
    import keras  # noqa: PLC0415  heavy

    with tempfile.TemporaryDirectory(prefix="stockflow-export-") as folder:
        keras_path, onnx_path = Path(folder, "model.keras"), Path(folder, "model.onnx")
        model.save(keras_path)
        fresh = keras.models.load_model(keras_path)
        expected = np.asarray(fresh(sample))  # a freshly loaded model must be called once before its export
        fresh.export(onnx_path, format="onnx", verbose=False)
        keras_bytes, onnx_bytes = keras_path.read_bytes(), onnx_path.read_bytes()
    _check_agreement(onnx_bytes, sample, expected)
    return keras_bytes, onnx_bytes


def _check_agreement(onnx_bytes: bytes, sample: Rows, expected: Rows) -> None:
    import onnxruntime  # noqa: PLC0415  only needed here

    session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: sample})
    difference = float(np.abs(found - expected).max())
    if not difference <= AGREEMENT:
        raise TrainingError(f"the ONNX model differs from Keras by {difference:.2g}, allowed is {AGREEMENT:g}")

"""A network trained in half precision is published in float32, and its ONNX agrees with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import sys
import numpy as np
import horovod.tensorflow as hvd
from app.dataset.windows import WindowSet
from app.settings import TrainingSettings
from app.training.export import export_model
from app.training.fit import fit
from app.training.part import Part
from app.training.watchdog import Watchdog

hvd.init()
n, random = 64, np.random.default_rng(3)
ones, zeros = np.ones((n, 2), np.float32), np.zeros(n, np.int64)
windows = WindowSet(
    random.normal(size=(n + 19, 2)).astype(np.float32), np.arange(n), random.normal(size=(n, 2)).astype(np.float32),
    np.ones(n), np.ones((n, 2)), ones, zeros, np.arange(n) * 60, ("A",), 20,
)
settings = TrainingSettings(precision=sys.argv[1], batch=16, epochs=1, lstm_units=8, dense_units=8)
part = Part(windows.between, n, rank=0, ranks=1)
with Watchdog(0, 300) as watchdog:
    trained = fit(settings, part, windows, None, watchdog)
export_model(trained.model, windows.inputs(slice(8)))
print(trained.model.get_layer("lstm").compute_dtype)
"""


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_ends_in_a_float32_model_that_serving_takes(precision: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, precision], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["float32"]

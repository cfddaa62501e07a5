"""Forecasts with a network so small that they can be worked out by hand."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from app import contract
from app.dataset.spec import Spec, TickerScale
from app.errors import ServingError
from app.serving.scoring import Scorer, current_model_id, load_scorer
from app.storage import Bucket
from tests.fakes import CountingSession, FakeS3, bucket, tiny_onnx

WINDOW = 3
SPEC = Spec(
    window_min=WINDOW,
    horizon_min=5,
    features=contract.FEATURES,
    scales={"A": TickerScale((1.0, 2.0), (2.0, 4.0), 0.5)},
    default_scale=TickerScale((0.0, 0.0), (1.0, 1.0), 3.0),
    fingerprint="f",
)


def test_rows_are_scaled_by_ticker_and_forecasts_are_in_units_of_its_target() -> None:
    rows = np.array([[[3, 6], [1, 2], [5, np.nan]], [[3, 6], [1, 2], [5, 0]]], np.float32)
    found = Scorer("m", tiny_onnx(WINDOW), SPEC).predict(["A", "NEW"], rows)
    # A: (3-1)/2 + 0 + (5-1)/2 = 3 and (6-2)/4 + 0 + nothing = 1, so (3 + 10) x 0.5.
    # NEW, by the pooled scale: 9 and 8, so (9 + 80) x 3.
    assert found.tolist() == [6.5, 267.0]
    assert found.dtype == np.float64


@pytest.mark.parametrize(
    ("windows", "calls"), [(0, []), (1, [1]), (1024, [1024]), (1025, [1024, 1]), (2500, [1024, 1024, 452])]
)
def test_windows_are_scored_together_in_chunks_of_1024(
    monkeypatch: pytest.MonkeyPatch, windows: int, calls: list[int]
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", CountingSession)
    rows = np.zeros((windows, WINDOW, 2), np.float32)
    rows[:, 0, 0] = np.arange(windows)
    found = Scorer("m", b"", SPEC).predict(["NEW"] * windows, rows)
    assert CountingSession.newest.calls == calls
    assert found.tolist() == [3.0 * i for i in range(windows)]


def test_a_model_is_loaded_from_its_bucket_once_with_its_own_spec(s3: FakeS3) -> None:
    models = Bucket("models")
    models.put(contract.model_key("m", contract.MODEL_ONNX), tiny_onnx(WINDOW))
    models.put_json(contract.model_key("m", contract.MODEL_SPEC), {"model_id": "m", **SPEC.to_json()})
    scorer = load_scorer("models", "m")
    assert (scorer.model_id, scorer.spec) == ("m", SPEC)
    s3.objects.clear()
    assert load_scorer("models", "m") is scorer


def test_the_current_model_is_the_one_pointed_to() -> None:
    models = bucket()
    with pytest.raises(ServingError, match=r"^no model has been promoted: s3://fake/models/current\.json"):
        current_model_id(models)
    models.put_json(contract.CURRENT_MODEL_KEY, {"model_id": "m-1"})
    assert current_model_id(models) == "m-1"

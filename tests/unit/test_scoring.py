"""Forecasts with a network so small that they can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from app import contract
from app.dataset.forecast import MEAN, P10, P50, P90
from app.dataset.spec import Spec, TickerScale
from app.errors import ServingError
from app.serving.scoring import Promoted, Scorer, load_scorer, promoted_model, read_spec
from app.storage import Bucket
from tests.fakes import FakeS3, bucket
from tests.models import CountingSession, plain_spec, tiny_onnx

WINDOW = 3
SPEC = Spec(
    window_min=WINDOW,
    horizons_min=(1, 5),
    features=contract.DEFAULT_FEATURES,
    scales={"A": TickerScale((1.0, 2.0), (2.0, 4.0), (0.5, 0.25))},
    default_scale=TickerScale((0.0, 0.0), (1.0, 1.0), (3.0, 1.0)),
    volume_profile=(),
    fingerprint="f",
)


def test_rows_are_scaled_by_ticker_and_forecasts_are_in_units_of_its_target_over_each_horizon() -> None:
    rows = np.array([[[3, 6], [1, 2], [5, np.nan]], [[3, 6], [1, 2], [5, 0]]], np.float32)
    found = Scorer("m", tiny_onnx(WINDOW, horizons=2), SPEC).predict(["A", "NEW"], rows)
    # A: (3-1)/2 + 0 + (5-1)/2 = 3 and (6-2)/4 + 0 + nothing = 1, so 13: times 0.5, and twice it times 0.25.
    # NEW, by the pooled scale: 9 and 8, so 89: times 3, and twice it times 1. Quantiles lie one and two beside it.
    assert found[:, :, MEAN].tolist() == found[:, :, P50].tolist() == [[6.5, 6.5], [267.0, 178.0]]
    assert found[:, :, P10].tolist() == [[6.0, 6.0], [264.0, 176.0]]
    assert found[:, :, P90].tolist() == [[7.0, 7.0], [270.0, 180.0]]
    assert found.dtype == np.float64


def test_quantiles_are_moved_by_the_model_s_calibration_and_the_mean_is_not() -> None:
    moved = replace(SPEC, calibration=((-0.5, 0.25, 1.0), (0.0, 0.0, 0.0)))
    rows = np.zeros((1, WINDOW, 2), np.float32)
    first, second = Scorer("m", tiny_onnx(WINDOW, horizons=2), moved).predict(["NEW"], rows)[0]
    assert first.tolist() == [0, 3 * (-1 - 1), 3 * 0.5, 3 * (1 + 2)]  # widths of 2, times 3
    assert second.tolist() == [0, -2, 0, 2]


@pytest.mark.parametrize(
    ("windows", "calls"), [(0, []), (1, [1]), (1024, [1024]), (1025, [1024, 1]), (2500, [1024, 1024, 452])]
)
def test_windows_are_scored_together_in_chunks_of_1024(
    monkeypatch: pytest.MonkeyPatch, windows: int, calls: list[int]
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", CountingSession)
    rows = np.zeros((windows, WINDOW, 2), np.float32)
    rows[:, 0, 0] = np.arange(windows)
    found = Scorer("m", b"", plain_spec(WINDOW, target_std=3.0)).predict(["NEW"] * windows, rows)
    assert CountingSession.newest.calls == calls
    assert found.shape == (windows, 1, 4)
    assert found[:, 0, 0].tolist() == [3.0 * i for i in range(windows)]


def test_a_model_is_loaded_from_its_bucket_once_with_its_own_spec(s3: FakeS3) -> None:
    models = Bucket("models")
    models.put(contract.model_key("m", contract.MODEL_ONNX), tiny_onnx(WINDOW, horizons=2))
    models.put_json(contract.model_key("m", contract.MODEL_SPEC), {"model_id": "m", **SPEC.to_json()})
    scorer = load_scorer("models", "m")
    assert (scorer.model_id, scorer.spec) == ("m", SPEC)
    s3.objects.clear()
    assert load_scorer("models", "m") is scorer


def test_the_current_model_is_the_one_pointed_to() -> None:
    models = bucket()
    with pytest.raises(ServingError, match=r"^no model has been promoted: s3://fake/models/current\.json"):
        promoted_model(models)
    models.put_json(contract.CURRENT_MODEL_KEY, {"model_id": "m-1"})
    assert promoted_model(models) == Promoted("m-1", {})


def store_spec(stored: dict[str, Any]) -> Bucket:
    models = bucket()
    models.put_json(contract.model_key("m", contract.MODEL_SPEC), stored)
    return models


def test_a_model_of_features_that_this_code_does_not_make_is_refused() -> None:
    models = store_spec({**SPEC.to_json(), "features": ["log_return", "moon_phase"]})
    with pytest.raises(ServingError, match="model m takes log_return, moon_phase, this code makes log_return, log_vol"):
        read_spec(models, "m")


def test_a_model_of_an_earlier_version_is_refused_in_a_sentence() -> None:
    stored = SPEC.to_json()
    del stored["horizons_min"]
    with pytest.raises(ServingError, match=r"^model m was trained by another version of this code: serve it with the"):
        read_spec(store_spec({**stored, "horizon_min": 5}), "m")
    one_horizon = {"mean": [0.0, 0.0], "std": [1.0, 1.0], "target_std": 1.0}
    with pytest.raises(ServingError, match="another version"):
        read_spec(store_spec({**SPEC.to_json(), "default_scale": one_horizon}), "m")

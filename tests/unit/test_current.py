"""The model that serves is judged on the very windows of the candidate, as it would have served them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from app import contract
from app.dataset.build import build_dataset
from app.dataset.spec import Spec
from app.dataset.windows import window_set
from app.settings import DatasetSettings
from app.storage import Bucket
from app.training.current import compare_current
from app.training.evaluate import mean_skill
from tests.fakes import FakeS3, bucket, make_sessions, market_bars

WINDOW, HORIZONS, SHARE = 5, (1, 3), 0.5
ALL = contract.FEATURES


@pytest.fixture(scope="module")
def dataset() -> tuple[pa.Table, Spec]:
    """Validation rows and the spec of a small market."""
    sessions = make_sessions(40, 30, 40, 35, 40, 40)
    settings = DatasetSettings(window_min=WINDOW, horizons_min=HORIZONS, max_filled_share=SHARE, validation_days=2)
    made = build_dataset(market_bars(["A", "B", "C"], sessions, {"B": 3}), sessions, settings)
    return made.splits["validation"], made.spec


def network(features: Sequence[str], weights: Sequence[float]) -> bytes:
    """(n, window, features) -> (n, horizons, 4): every number is the weighted sum of the last minute's features."""
    from onnx import TensorProto, helper

    matrix = np.zeros((WINDOW, len(features), len(HORIZONS) * 4))
    matrix[-1] = np.array(weights)[:, None]
    flat = [WINDOW * len(features), len(HORIZONS) * 4]
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["numbers"]),
            helper.make_node("Reshape", ["numbers", "shape"], ["y"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WINDOW, len(features)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", len(HORIZONS), 4])],
        [
            helper.make_tensor("weights", TensorProto.FLOAT, flat, matrix.ravel()),
            helper.make_tensor("shape", TensorProto.INT64, [3], [-1, len(HORIZONS), 4]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(model.SerializeToString())


def serving(spec: Spec, weights: Sequence[float]) -> Bucket:
    """A bucket in which model `old` serves."""
    models = bucket(FakeS3())
    models.put_json(contract.model_key("old", contract.MODEL_SPEC), {"model_id": "old", **spec.to_json()})
    models.put(contract.model_key("old", contract.MODEL_ONNX), network(spec.features, weights))
    models.put_json(contract.CURRENT_MODEL_KEY, {"model_id": "old"})
    return models


def test_without_a_model_there_is_nothing_to_compare(dataset: tuple[pa.Table, Spec]) -> None:
    assert compare_current(bucket(FakeS3()), lambda: dataset[0], dataset[1], SHARE, 0.1) is None


def test_it_is_asked_with_its_own_features_and_scalers_on_the_same_windows(dataset: tuple[pa.Table, Spec]) -> None:
    table, spec = dataset
    own = spec.select(["log_volume", "log_return"])
    scale = replace(own.default_scale, mean=(3.0, 0.001), std=(2.0, 0.5), target_std=(0.002, 0.004))
    own = replace(own, scales={"A": scale}, default_scale=scale)
    found = compare_current(serving(own, [0.3, -2.0]), lambda: table, spec, SHARE, 0.125)
    windows = window_set(table, spec, SHARE)
    last = windows.starts + WINDOW - 1
    volume, move = (table[name].to_numpy()[last] for name in own.features)
    predicted = 0.3 * (volume - 3.0) / 2.0 - 2.0 * (move - 0.001) / 0.5
    expected = mean_skill(predicted[:, None] * np.array([0.002, 0.004]), windows.last_price, windows.future_price)
    assert found is not None
    assert list(found) == ["model_id", "skill", "windows", "candidate_skill"]
    assert (found["model_id"], found["windows"], found["candidate_skill"]) == ("old", len(windows), 0.125)
    assert found["skill"] == pytest.approx(expected, rel=1e-5)


def test_volume_is_seen_against_its_own_profile_as_when_it_serves(dataset: tuple[pa.Table, Spec]) -> None:
    table, spec = dataset
    own = replace(
        spec.select([contract.FEATURE_RELATIVE_VOLUME]),
        volume_profile=tuple(np.linspace(-3, 3, contract.SESSION_MINUTES).tolist()),
    )
    found = compare_current(serving(own, [0.1]), lambda: table, spec, SHARE, 0.0)
    number = table[contract.FEATURE_SESSION_MINUTE].to_numpy().astype(int)
    seen = table[contract.FEATURE_VOLUME].to_numpy() - np.array(own.volume_profile)[number]
    place = table.schema.get_field_index(contract.FEATURE_RELATIVE_VOLUME)
    rows = table.set_column(place, contract.FEATURE_RELATIVE_VOLUME, pa.array(seen.astype(np.float32)))
    windows = window_set(rows, own, SHARE)
    predicted = (0.1 * windows.inputs(slice(None))[:, -1] * windows.target_std).astype(np.float64)
    assert found is not None
    assert found["skill"] == pytest.approx(mean_skill(predicted, windows.last_price, windows.future_price), rel=1e-5)


def test_the_model_that_says_the_price_stays_has_no_skill(dataset: tuple[pa.Table, Spec]) -> None:
    found = compare_current(serving(dataset[1], [0.0] * len(ALL)), lambda: dataset[0], dataset[1], SHARE, 0.1)
    assert found is not None
    assert found["skill"] == 0


def test_a_model_of_other_minutes_is_not_compared(dataset: tuple[pa.Table, Spec]) -> None:
    table, spec = dataset
    weights = [0.0] * len(ALL)
    for other, reason in (
        (replace(spec, window_min=30), "its window_min is 30, the candidate's 5"),
        (replace(spec, horizons_min=(5,)), "its horizons_min is [5], the candidate's [1, 3]"),
        (replace(spec, features=("mood",)), "it takes mood, which the dataset does not hold"),
    ):
        models = serving(spec, weights)
        models.put_json(contract.model_key("old", contract.MODEL_SPEC), other.to_json())
        assert compare_current(models, lambda: table, spec, SHARE, 0.1) == {"model_id": "old", "reason": reason}


def test_a_model_of_the_version_before_is_not_compared(dataset: tuple[pa.Table, Spec]) -> None:
    models = serving(dataset[1], [0.0] * len(ALL))
    models.put_json(contract.model_key("old", contract.MODEL_SPEC), {"window_min": WINDOW, "horizon_min": 5})
    found = compare_current(models, lambda: dataset[0], dataset[1], SHARE, 0.1)
    assert found == {"model_id": "old", "reason": "its horizons_min is None, the candidate's [1, 3]"}


@pytest.mark.parametrize("name", [contract.MODEL_SPEC, contract.MODEL_ONNX])
def test_a_model_that_lacks_a_file_is_not_compared(dataset: tuple[pa.Table, Spec], name: str) -> None:
    models = serving(dataset[1], [0.0] * len(ALL))
    models.delete(contract.model_key("old", name))
    found = compare_current(models, lambda: dataset[0], dataset[1], SHARE, 0.1)
    assert found is not None
    assert found["reason"].startswith(f"s3://fake/models/old/{name} does not exist")


def test_forecasts_that_are_not_finite_are_told(dataset: tuple[pa.Table, Spec]) -> None:
    found = compare_current(serving(dataset[1], [np.inf] * len(ALL)), lambda: dataset[0], dataset[1], SHARE, 0.1)
    assert found == {"model_id": "old", "reason": "its forecasts are not finite"}

"""The model that serves is judged on the very windows of the candidate, as it would have served them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

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


def network(features: Sequence[str], weights: Sequence[float], window: int = WINDOW) -> bytes:
    """(n, window, features) -> (n, horizons, 4): every number is the weighted sum of the last minute's features."""
    from onnx import TensorProto, helper

    matrix = np.zeros((window, len(features), len(HORIZONS) * 4))
    matrix[-1] = np.array(weights)[:, None]
    flat = [window * len(features), len(HORIZONS) * 4]
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["numbers"]),
            helper.make_node("Reshape", ["numbers", "shape"], ["y"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", window, len(features)])],
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


def compared(models: Bucket, dataset: tuple[pa.Table, Spec], returns: float = 0.001) -> dict[str, Any] | None:
    """With a candidate that forecasts the same at every minute."""
    table, spec = dataset
    count = len(window_set(table, spec, SHARE))
    return compare_current(models, lambda: table, spec, SHARE, np.full((count, len(spec.horizons_min)), returns))


def test_without_a_model_there_is_nothing_to_compare(dataset: tuple[pa.Table, Spec]) -> None:
    assert compared(bucket(FakeS3()), dataset) is None


def test_it_is_asked_with_its_own_features_and_scalers_on_the_same_windows(dataset: tuple[pa.Table, Spec]) -> None:
    table, spec = dataset
    own = spec.select(["log_volume", "log_return"])
    scale = replace(own.default_scale, mean=(3.0, 0.001), std=(2.0, 0.5), target_std=(0.002, 0.004))
    own = replace(own, scales={"A": scale}, default_scale=scale)
    found = compared(serving(own, [0.3, -2.0]), dataset)
    windows = window_set(table, spec, SHARE)
    last = windows.starts + WINDOW - 1
    volume, move = (table[name].to_numpy()[last] for name in own.features)
    predicted = 0.3 * (volume - 3.0) / 2.0 - 2.0 * (move - 0.001) / 0.5
    expected = mean_skill(predicted[:, None] * np.array([0.002, 0.004]), windows.last_price, windows.future_price)
    assert found is not None
    assert (found["model_id"], found["windows"], found["horizons_min"]) == ("old", len(windows), [1, 3])
    assert found["skill"] == pytest.approx(expected, rel=1e-5)
    still = np.full((len(windows), 2), 0.001)
    assert found["candidate_skill"] == mean_skill(still, windows.last_price, windows.future_price)


def test_volume_is_seen_against_its_own_profile_as_when_it_serves(dataset: tuple[pa.Table, Spec]) -> None:
    table, spec = dataset
    own = replace(
        spec.select([contract.FEATURE_RELATIVE_VOLUME]),
        volume_profile=tuple(np.linspace(-3, 3, contract.SESSION_MINUTES).tolist()),
    )
    found = compared(serving(own, [0.1]), dataset)
    number = table[contract.FEATURE_SESSION_MINUTE].to_numpy().astype(int)
    seen = table[contract.FEATURE_VOLUME].to_numpy() - np.array(own.volume_profile)[number]
    place = table.schema.get_field_index(contract.FEATURE_RELATIVE_VOLUME)
    rows = table.set_column(place, contract.FEATURE_RELATIVE_VOLUME, pa.array(seen.astype(np.float32)))
    windows = window_set(rows, own, SHARE)
    predicted = (0.1 * windows.inputs(slice(None))[:, -1] * windows.target_std).astype(np.float64)
    assert found is not None
    assert found["skill"] == pytest.approx(mean_skill(predicted, windows.last_price, windows.future_price), rel=1e-5)


def test_the_model_that_says_the_price_stays_has_no_skill(dataset: tuple[pa.Table, Spec]) -> None:
    found = compared(serving(dataset[1], [0.0] * len(ALL)), dataset)
    assert found is not None
    assert found["skill"] == 0


def test_other_horizons_are_compared_on_those_that_both_have(dataset: tuple[pa.Table, Spec]) -> None:
    table, spec = dataset
    scale = replace(spec.default_scale, target_std=(0.004, 0.009))
    other = replace(spec, horizons_min=(3, 30), scales={}, default_scale=scale)  # 30: beyond the end of most sessions
    found = compared(serving(other, [0.1] * len(ALL)), dataset)
    windows = window_set(table, spec, SHARE)
    seen = window_set(table, other.of_horizons([3]), SHARE)
    ends = np.isin(seen.starts, windows.starts)
    predicted = 0.1 * seen.inputs(slice(None))[ends, -1].sum(axis=1) * 0.004
    theirs, ours = predicted[:, None].astype(np.float64), np.full((len(windows), 1), 0.001)
    prices = windows.last_price, windows.future_price[:, 1:]
    assert found is not None
    assert (found["windows"], found["horizons_min"]) == (len(windows), [3])
    assert found["skill"] == pytest.approx(mean_skill(theirs, *prices), rel=1e-5)
    assert found["candidate_skill"] == mean_skill(ours, *prices)


@pytest.mark.parametrize("window", [3, 9])
def test_other_windows_are_compared_at_the_minutes_that_end_one_of_both(
    dataset: tuple[pa.Table, Spec], window: int
) -> None:
    table, spec = dataset
    other = replace(spec, window_min=window)
    models = serving(other, [0.1] * len(ALL))
    models.put(contract.model_key("old", contract.MODEL_ONNX), network(ALL, [0.1] * len(ALL), window))
    found = compared(models, dataset)
    ours, theirs = window_set(table, spec, SHARE), window_set(table, other, SHARE)
    last = [{*zip(each.ticker.tolist(), each.as_of.tolist(), strict=True)} for each in (ours, theirs)]
    at = np.array([pair in last[0] for pair in zip(theirs.ticker.tolist(), theirs.as_of.tolist(), strict=True)])
    predicted = 0.1 * theirs.inputs(slice(None))[at, -1].sum(axis=1, keepdims=True) * theirs.target_std[at]
    assert found is not None
    assert 0 < found["windows"] == at.sum() == len(last[0] & last[1]) <= len(ours)
    expected = mean_skill(predicted.astype(np.float64), theirs.last_price[at], theirs.future_price[at])
    assert found["skill"] == pytest.approx(expected, rel=1e-5)


def test_a_model_of_other_minutes_is_not_compared(dataset: tuple[pa.Table, Spec]) -> None:
    _, spec = dataset
    weights = [0.0] * len(ALL)
    for other, reason in (
        (replace(spec, horizons_min=(5,)), "its horizons_min is [5], the candidate's [1, 3]: none is shared"),
        (replace(spec, features=("mood",)), "it takes mood, which the dataset does not hold"),
    ):
        models = serving(spec, weights)
        models.put_json(contract.model_key("old", contract.MODEL_SPEC), other.to_json())
        assert compared(models, dataset) == {"model_id": "old", "reason": reason}


def test_a_model_of_the_version_before_is_not_compared(dataset: tuple[pa.Table, Spec]) -> None:
    models = serving(dataset[1], [0.0] * len(ALL))
    models.put_json(contract.model_key("old", contract.MODEL_SPEC), {"window_min": WINDOW, "horizon_min": 5})
    found = compared(models, dataset)
    assert found == {"model_id": "old", "reason": "its horizons_min is None, the candidate's [1, 3]: none is shared"}


@pytest.mark.parametrize("name", [contract.MODEL_SPEC, contract.MODEL_ONNX])
def test_a_model_that_lacks_a_file_is_not_compared(dataset: tuple[pa.Table, Spec], name: str) -> None:
    models = serving(dataset[1], [0.0] * len(ALL))
    models.delete(contract.model_key("old", name))
    found = compared(models, dataset)
    assert found is not None
    assert found["reason"].startswith(f"s3://fake/models/old/{name} does not exist")


def test_forecasts_that_are_not_finite_are_told(dataset: tuple[pa.Table, Spec]) -> None:
    found = compared(serving(dataset[1], [np.inf] * len(ALL)), dataset)
    assert found == {"model_id": "old", "reason": "its forecasts are not finite"}

"""Models so small that what they forecast can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app import contract
from app.dataset.spec import Spec, TickerScale


def plain_spec(
    window: int,
    horizons: tuple[int, ...] = (5,),
    features: tuple[str, ...] = contract.DEFAULT_FEATURES,
    *,
    target_std: float = 1.0,
    volume_profile: Sequence[float] | None = None,
) -> Spec:
    """A spec that scales no feature; unless told otherwise no minute of a session has more volume than another."""
    count = len(features)
    scale = TickerScale((0.0,) * count, (1.0,) * count, (target_std,) * len(horizons))
    profile = (0.0,) * contract.SESSION_MINUTES if volume_profile is None else tuple(volume_profile)
    return Spec(window, horizons, features, {}, scale, profile, "f")


def tiny_onnx(window: int, horizons: int = 1, features: int = 2) -> bytes:
    """A network to work out by hand: (n, window, features) -> (n, horizons, 4).

    The mean of horizon number h = 1, 2, ... is h times the sum over the minutes of 1 x the first feature,
    10 x the second, 100 x the third and so on; p10, p50 and p90 are that -h, +0 and +h.
    """
    from onnx import TensorProto, checker, helper

    numbers = np.arange(1, horizons + 1)
    weights = np.tile(10.0 ** np.arange(features), window)[:, None] * np.repeat(numbers, 4)
    bias = np.outer(numbers, [0, -1, 0, 1])
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["sums"]),
            helper.make_node("Add", ["sums", "bias"], ["moved"]),
            helper.make_node("Reshape", ["moved", "shape"], ["y"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", window, features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", horizons, 4])],
        [
            helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights.ravel()),
            helper.make_tensor("bias", TensorProto.FLOAT, [4 * horizons], bias.ravel()),
            helper.make_tensor("shape", TensorProto.INT64, [3], [-1, horizons, 4]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    checker.check_model(model)
    return bytes(model.SerializeToString())


class CountingSession:
    """Stands in for onnxruntime's session: forecasts each window's first value, and keeps the sizes of its calls."""

    newest: CountingSession

    def __init__(self, model: bytes, options: Any, providers: Sequence[str]) -> None:
        self.calls: list[int] = []
        CountingSession.newest = self

    def get_inputs(self) -> list[Any]:
        """One input, x."""
        return [type("Input", (), {"name": "x"})]

    def run(self, names: None, inputs: Mapping[str, Any]) -> list[Any]:
        """One forecast for each window: (n, 1, 4), all four the same."""
        self.calls.append(len(inputs["x"]))
        return [np.repeat(inputs["x"][:, 0, :1, None], 4, axis=2)]

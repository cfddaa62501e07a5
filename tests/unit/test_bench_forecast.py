"""The table of what forecasts are worth."""

from __future__ import annotations

from app import contract
from benchmarks.forecast import table, variants

_FOUND = {
    "skill": 0.05,
    "skill_interval": (0.01, 0.09),
    "over_linear": -0.002,
    "direction": 0.6,
    "rank_ic": 0.25,
    "coverage": 0.79,
}


def row(**changed: object) -> dict[str, object]:
    return {"variant": "default", "train_s": 61.2, "test": {"horizons": {"5": {**_FOUND, **changed}}}}


def test_each_feature_is_added_once_and_nothing_is_trained_twice() -> None:
    added = [features[-1] for name, features in variants().items() if name.startswith("+ ")]
    assert sorted([*added, *contract.DEFAULT_FEATURES]) == sorted(contract.FEATURES)
    assert len(set(variants().values())) == len(variants())


def test_a_row_tells_the_share_of_what_can_be_found() -> None:
    *_, line = table([row()], {"5": 0.1})
    assert line == "| default | 5 | +0.0500 | +0.0100 to +0.0900 | 50% | -0.0020 | 0.600 | +0.250 | 0.790 | 61 |"


def test_what_is_not_known_is_left_out() -> None:
    *_, line = table([row(skill_interval=None, rank_ic=None, direction=None)], {})
    assert line == "| default | 5 | +0.0500 |  |  | -0.0020 |  |  | 0.790 | 61 |"

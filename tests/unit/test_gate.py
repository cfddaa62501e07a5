"""A model takes over when it beats persistence on the validation days, and only whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app import contract
from app.errors import ObjectMissing, TrainingError
from app.storage import Bucket
from app.training.gate import Decision, decide, promote
from tests.fakes import FakeS3, bucket

NOW = datetime(2026, 3, 24, 20, 30, tzinfo=UTC)
SHA256 = {name: f"sha256 of {name}" for name in contract.MODEL_FILES}


def trained(skill: Any = 0.25, model_id: str = "m", models: Bucket | None = None) -> Bucket:
    """A model bucket in which run r has left a candidate."""
    models = models or bucket(FakeS3())
    for name in contract.MODEL_FILES:
        models.put(contract.model_key(model_id, name), b"{}")
    validation = {"windows": 1560, **({} if skill is None else {"skill": skill})}
    # Not through put_json, which refuses NaN.
    text = repr({"validation": validation}).replace("'", '"').replace("nan", "NaN")
    models.put(contract.model_key(model_id, contract.MODEL_METRICS), text.encode())
    models.put_json(contract.candidate_key("r"), {"model_id": model_id, "trained_at": "", "sha256": SHA256})
    return models


@pytest.mark.parametrize(("skill", "passes"), [(0.25, True), (0.1000001, True), (0.1, False), (-0.5, False)])
def test_a_model_is_promoted_above_the_least_skill(skill: float, passes: bool) -> None:
    assert decide(trained(skill), "r", 0.1, NOW).promote is passes


def test_the_reason_tells_the_figures() -> None:
    assert decide(trained(0.25), "r", 0.1, NOW).reason == (
        "its skill over persistence, +0.25 on 1,560 validation windows, is above gate.min_skill=0.1"
    )
    assert decide(trained(-0.00001), "r", 0, NOW).reason == (
        "its skill over persistence, -1e-05 on 1,560 validation windows, is not above gate.min_skill=0"
    )


def test_the_decision_is_stored_beside_the_model_and_moves_nothing() -> None:
    models = trained()
    decision = decide(models, "r", 0, NOW)
    assert decision == Decision(True, decision.reason, "m", 0.25, 1560, "")
    assert models.get_json(contract.model_key("m", contract.MODEL_DECISION)) == {
        **decision.to_json(),
        "decided_at": "2026-03-24T20:30:00+00:00",
    }
    assert not models.exists(contract.CURRENT_MODEL_KEY)


def test_the_decision_names_the_model_that_serves() -> None:
    models = trained()
    models.put_json(contract.CURRENT_MODEL_KEY, {"model_id": "older"})
    assert decide(models, "r", 0, NOW).serving == "older"


def test_a_run_without_a_candidate_is_told_by_its_key() -> None:
    empty = bucket(FakeS3())
    with pytest.raises(ObjectMissing, match=r"models/candidates/r\.json does not exist: run the phase that writes it"):
        decide(empty, "r", 0, NOW)
    with pytest.raises(ObjectMissing, match=r"models/candidates/r\.json"):
        promote(empty, "r", "m", NOW)


@pytest.mark.parametrize(
    ("skill", "message"),
    [
        (float("nan"), "the skill of model m is nan: it is not promoted; train the run again"),
        (None, r"s3://fake/models/m/metrics\.json tells no skill on the validation days: model m is not promoted"),
        ("good", "tells no skill"),
    ],
)
def test_metrics_without_a_skill_promote_nothing(skill: Any, message: str) -> None:
    models = trained(skill)
    with pytest.raises(TrainingError, match=message):
        decide(models, "r", -1, NOW)
    assert not models.exists(contract.model_key("m", contract.MODEL_DECISION))


def test_promotion_moves_the_pointer_to_the_candidate() -> None:
    models = trained()
    pointer = promote(models, "r", "m", NOW)
    assert pointer == {"model_id": "m", "published_at": "2026-03-24T20:30:00+00:00", "sha256": SHA256}
    assert models.get_json(contract.CURRENT_MODEL_KEY) == pointer


def test_a_repeated_promotion_changes_nothing() -> None:
    models = trained()
    pointer = promote(models, "r", "m", NOW)
    assert promote(models, "r", "m", NOW + timedelta(hours=1)) == pointer
    assert models.get_json(contract.CURRENT_MODEL_KEY) == pointer


@pytest.mark.parametrize("name", contract.MODEL_FILES)
def test_an_incomplete_model_does_not_take_over(name: str) -> None:
    models = trained(model_id="old")
    promote(models, "r", "old", NOW)
    trained(models=models)
    models.delete(contract.model_key("m", name))
    with pytest.raises(TrainingError, match=f"model m lacks {name}: it is not promoted; train the run again"):
        promote(models, "r", "m", NOW)
    assert models.get_json(contract.CURRENT_MODEL_KEY)["model_id"] == "old"


def test_only_the_model_on_which_the_gate_decided_takes_over() -> None:
    models = trained()
    decision = decide(models, "r", 0, NOW)
    trained(model_id="later", models=models)
    with pytest.raises(TrainingError, match="decided on model m, but the candidate of run r is later now: it is not"):
        promote(models, "r", decision.model_id, NOW)
    assert not models.exists(contract.CURRENT_MODEL_KEY)

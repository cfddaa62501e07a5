"""A model takes over when it is no worse than persistence and the current model, and only whole."""

from __future__ import annotations

import json
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


def trained(
    skill: Any = 0.25, model_id: str = "m", models: Bucket | None = None, current: dict[str, Any] | None = None
) -> Bucket:
    """A model bucket in which run r has left a candidate. current: what training says of the model that served."""
    models = models or bucket(FakeS3())
    for name in contract.MODEL_FILES:
        models.put(contract.model_key(model_id, name), b"{}")
    validation = {"windows": 1560, **({} if skill is None else {"skill": skill})}
    # Not through put_json, which refuses NaN.
    text = json.dumps({"validation": validation, "current": current})
    models.put(contract.model_key(model_id, contract.MODEL_METRICS), text.encode())
    models.put_json(contract.candidate_key("r"), {"model_id": model_id, "trained_at": "", "sha256": SHA256})
    return models


def challenging(
    theirs: Any, ours: float = 0.25, serving: str = "older", compared: str = "older", **more: Any
) -> Bucket:
    """As `trained`, while model `serving` serves; training compared the candidate with model `compared`."""
    current = {"model_id": compared, "skill": theirs, "windows": 1560, "candidate_skill": ours, **more}
    models = trained(ours, current=current)
    models.put_json(contract.CURRENT_MODEL_KEY, {"model_id": serving})
    return models


@pytest.mark.parametrize(("skill", "passes"), [(0.25, True), (0.1, True), (0.0999999, False), (-0.5, False)])
def test_a_model_with_less_than_the_least_skill_is_not_promoted(skill: float, passes: bool) -> None:
    assert decide(trained(skill), "r", 0.1, NOW).promote is passes


def test_a_model_that_is_persistence_itself_is_no_worse() -> None:
    assert decide(trained(0.0), "r", 0, NOW).promote is True


def test_the_reason_tells_the_figures() -> None:
    assert decide(trained(0.25), "r", 0.1, NOW).reason == (
        "its skill over persistence, +0.25 on 1,560 validation windows, is not below gate.min_skill=0.1;"
        " no model serves yet"
    )
    assert decide(trained(-0.00001), "r", 0, NOW).reason.startswith(
        "its skill over persistence, -1e-05 on 1,560 validation windows, is below gate.min_skill=0; "
    )


@pytest.mark.parametrize(
    ("theirs", "promote", "told"),
    [(0.2, True, "no higher, +0.2"), (0.25, True, "no higher, +0.25"), (0.2500001, False, "higher, +0.25")],
)
def test_a_model_that_is_worse_than_the_current_one_is_not_promoted(theirs: float, promote: bool, told: str) -> None:
    decision = decide(challenging(theirs), "r", 0, NOW)
    assert (decision.promote, decision.serving, decision.serving_skill) == (promote, "older", theirs)
    assert decision.reason.endswith(f"; that of model older, which serves, is {told} on the same windows")


def test_a_comparison_on_what_both_forecast_tells_both_skills_and_where() -> None:
    decision = decide(challenging(0.2, ours=0.1, windows=900, horizons_min=[5, 10]), "r", 0, NOW)
    assert (decision.promote, decision.serving_skill) == (False, 0.2)
    assert decision.reason.endswith(
        "; that of model older, which serves, is higher, +0.2 against +0.1, both for 5, 10 min on the 900 windows that"
        " both take"
    )


def test_what_differs_by_rounding_alone_is_no_worse() -> None:
    assert decide(challenging(0.25 + 1e-10), "r", 0, NOW).promote is True


def test_better_than_the_current_model_is_not_enough_below_the_least_skill() -> None:
    decision = decide(challenging(-0.3, ours=-0.1), "r", 0, NOW)
    assert decision.promote is False
    assert "-0.1 on 1,560 validation windows, is below gate.min_skill=0;" in decision.reason


@pytest.mark.parametrize("compared", ["older", ""])
def test_a_model_promoted_meanwhile_makes_the_comparison_out_of_date(compared: str) -> None:
    models = challenging(0.1, serving="newer", compared=compared)
    if not compared:  # no model served when this one was trained
        models = trained(0.25, models=models)
    decision = decide(models, "r", 0, NOW)
    assert (decision.promote, decision.serving, decision.serving_skill) == (False, "newer", None)
    other = f"compared with {compared}" if compared else "compared with no model"
    assert decision.reason.endswith(f"; model newer serves now and it was {other}: train the run again")


def test_a_current_model_of_another_kind_leaves_persistence_alone_to_decide() -> None:
    reason = "its window_min is 30, the candidate's 60"
    for skill, promoted in ((0.1, True), (-0.1, False)):
        current = {"model_id": "older", "reason": reason}
        models = trained(skill, current=current)
        models.put_json(contract.CURRENT_MODEL_KEY, {"model_id": "older"})
        decision = decide(models, "r", 0, NOW)
        assert (decision.promote, decision.serving_skill) == (promoted, None)
        assert decision.reason.endswith(f"; it was not compared with model older, which serves: {reason}")


def test_a_current_model_that_is_gone_leaves_persistence_alone_to_decide() -> None:
    models = challenging(0.5)
    models.delete(contract.CURRENT_MODEL_KEY)
    decision = decide(models, "r", 0, NOW)
    assert (decision.promote, decision.serving) == (True, "")


def test_a_model_that_serves_already_is_not_compared_with_itself() -> None:
    decision = decide(challenging(0.9, serving="m"), "r", 0, NOW)
    assert (decision.promote, decision.serving) == (True, "m")
    assert decision.reason.endswith("; it serves already")


@pytest.mark.parametrize("theirs", [None, float("nan"), "good"])
def test_a_comparison_without_a_number_promotes_nothing(theirs: Any) -> None:
    with pytest.raises(TrainingError, match=r"current\.skill.*not promoted; train the run again"):
        decide(challenging(theirs), "r", 0, NOW)


def test_the_decision_is_stored_beside_the_model_and_moves_nothing() -> None:
    models = trained()
    decision = decide(models, "r", 0, NOW)
    assert decision == Decision(True, decision.reason, "m", 0.25, 1560, "", None)
    assert models.get_json(contract.model_key("m", contract.MODEL_DECISION)) == {
        **decision.to_json(),
        "decided_at": "2026-03-24T20:30:00+00:00",
    }
    assert not models.exists(contract.CURRENT_MODEL_KEY)


def test_a_run_without_a_candidate_is_told_by_its_key() -> None:
    empty = bucket(FakeS3())
    with pytest.raises(ObjectMissing, match=r"models/candidates/r\.json does not exist: run the phase that writes it"):
        decide(empty, "r", 0, NOW)
    with pytest.raises(ObjectMissing, match=r"models/candidates/r\.json"):
        promote(empty, "r", "m", NOW)


@pytest.mark.parametrize(
    ("skill", "message"),
    [
        (float("nan"), r"validation\.skill of model m is nan: it is not promoted; train the run again"),
        (None, r"s3://fake/models/m/metrics\.json tells no number for validation\.skill: model m is not promoted"),
        ("good", "tells no number"),
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


@pytest.mark.parametrize(("serving", "moved"), [("older", False), ("newer", True), (None, True)])
def test_a_model_promoted_after_the_decision_is_not_overwritten(serving: str | None, moved: bool) -> None:
    models = trained()
    models.put_json(contract.CURRENT_MODEL_KEY, {"model_id": "newer"})
    if moved:
        assert promote(models, "r", "m", NOW, serving=serving)["model_id"] == "m"
    else:
        with pytest.raises(TrainingError, match="model newer has been promoted since the gate decided on m: it is not"):
            promote(models, "r", "m", NOW, serving=serving)
    assert models.get_json(contract.CURRENT_MODEL_KEY)["model_id"] == ("m" if moved else "newer")


def test_a_promotion_that_is_tried_again_knows_its_own_pointer() -> None:
    models = trained()
    pointer = promote(models, "r", "m", NOW, serving="")
    assert promote(models, "r", "m", NOW + timedelta(hours=1), serving="") == pointer
    trained(models=models)
    models.put_json(contract.candidate_key("r"), {"model_id": "m", "sha256": {}})  # trained again, other bytes
    assert promote(models, "r", "m", NOW, serving="m")["sha256"] == {}
    models.delete(contract.CURRENT_MODEL_KEY)
    assert promote(models, "r", "m", NOW, serving="m")["model_id"] == "m"


class Racing(FakeS3):
    """Another promotion moves the pointer between this one's reading and writing of it."""

    def __init__(self, other: str) -> None:
        super().__init__()
        self.other = other

    def put_object(self, **call: Any) -> dict[str, Any]:
        if call["Key"] == contract.CURRENT_MODEL_KEY and self.other:
            body = json.dumps({"model_id": self.other, "sha256": SHA256 if self.other == "m" else {}}).encode()
            self.other = ""
            super().put_object(Key=call["Key"], Body=body)
        return super().put_object(**call)


@pytest.mark.parametrize("before", ["", "older"])
def test_of_two_promotions_at_once_the_later_one_ends_without_a_trace(before: str) -> None:
    s3 = Racing("")
    models = trained(models=bucket(s3))
    if before:
        models.put_json(contract.CURRENT_MODEL_KEY, {"model_id": before})
    s3.other = "newer"
    with pytest.raises(
        TrainingError,
        match=r"^models/current.json was written by another promotion .* names model newer: model m is not prom",
    ):
        promote(models, "r", "m", NOW, serving=before)
    assert models.get_json(contract.CURRENT_MODEL_KEY) == {"model_id": "newer", "sha256": {}}


def test_a_promotion_whose_answer_was_lost_knows_its_own_pointer() -> None:
    models = trained(models=bucket(Racing("m")))
    assert promote(models, "r", "m", NOW, serving="") == {"model_id": "m", "sha256": SHA256}

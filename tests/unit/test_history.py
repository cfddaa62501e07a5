"""The history of models and of runs, as it stands in the buckets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from app import contract
from app.consumer.history import models, runs
from app.ingest.plan import write_plan
from app.storage import Bucket
from app.training.gate import decide, promote
from app.workflow.results import write_result
from tests.fakes import FakeS3, bucket, make_sessions

NOW = datetime(2026, 2, 1, tzinfo=UTC)
HORIZON = {"skill": 0.03, "skill_interval": [0.01, 0.05], "significant": True, "direction": 0.6, "coverage": 0.8}


@pytest.fixture
def held() -> Bucket:
    """A bucket that is all three."""
    return bucket()


def train(held: Bucket, run_id: str, model_id: str, hour: int, skill: float, **metrics: Any) -> None:
    """Leave a model as training does."""
    for name in contract.MODEL_FILES:
        held.put(contract.model_key(model_id, name), b"")
    told = {
        "validation": {"skill": skill, "windows": 100},
        "test": {"skill": 0.04, "horizons": {"5": HORIZON | {"x": 1}}},
    }
    held.put_json(contract.model_key(model_id, contract.MODEL_METRICS), told | metrics)
    candidate = {"model_id": model_id, "trained_at": f"2026-01-31T{hour:02}:00:00+00:00", "sha256": {}}
    held.put_json(contract.candidate_key(run_id), candidate)


def judge(held: Bucket, run_id: str) -> None:
    decision = decide(held, run_id, 0.0, NOW)
    if decision.promote:
        promote(held, run_id, decision.model_id, NOW, serving=decision.serving)


def test_models_tell_what_became_of_them(held: Bucket) -> None:
    train(held, "r1", "m1", 1, 0.01)
    judge(held, "r1")
    train(held, "r2", "m2", 2, -0.02)
    judge(held, "r2")
    compared = {"model_id": "m1", "candidate_skill": 0.05, "skill": 0.01, "windows": 100, "horizons_min": [5]}
    train(held, "r3", "m3", 3, 0.05, current=compared)
    judge(held, "r3")
    train(held, "r4", "m4", 4, 0.06)
    train(held, "r4-again", "m4", 5, 0.06)
    held.put_json(contract.begun_key("r5"), {"model_id": "m5"})
    found = {model["model_id"]: model for model in models(held)}
    assert [*found] == ["m5", "m4", "m3", "m2", "m1"]
    assert {name: model["state"] for name, model in found.items()} == {
        "m1": "promoted",
        "m2": "refused",
        "m3": "current",
        "m4": "candidate",
        "m5": "training",
    }
    assert found["m3"] == {
        "model_id": "m3",
        "state": "current",
        "trained_at": "2026-01-31T03:00:00+00:00",
        "skill": 0.05,
        "test_skill": 0.04,
        "horizons": {"5": HORIZON},
        "windows": 100,
        "decided_at": "2026-02-01T00:00:00+00:00",
        "promoted": True,
        "reason": found["m3"]["reason"],
        "serving": "m1",
        "serving_skill": 0.01,
        "runs": ["r3"],
    }
    assert found["m3"]["reason"].startswith("its skill over persistence, +0.05 on 100 validation windows, is not below")
    assert (found["m4"]["trained_at"], found["m4"]["runs"]) == ("2026-01-31T05:00:00+00:00", ["r4", "r4-again"])
    assert (found["m5"]["trained_at"], found["m5"]["skill"], found["m5"]["runs"]) == (None, None, ["r5"])


def test_a_model_whose_candidate_is_gone_was_trained_when_its_metrics_were_written(held: Bucket) -> None:
    held.put_json(contract.model_key("old", contract.MODEL_METRICS), {"windows_train": 7})
    held.put(contract.checkpoint_key("half", 1), b"")
    (found,) = models(held)
    assert (found["model_id"], found["trained_at"]) == ("old", "2026-01-01T00:00:01+00:00")
    assert (found["state"], found["skill"], found["horizons"]) == ("candidate", None, {})


def test_runs_tell_what_was_planned_and_what_came_of_it(held: Bucket) -> None:
    sessions = make_sessions(390, 390, 390)
    write_plan("r1", ["A", "B"], held, sessions, shards=2, request_days=7)
    assert runs(held, held) == [
        {
            "run_id": "r1",
            "started_at": "2026-01-01T00:00:01+00:00",
            "tickers": 2,
            "sessions": 3,
            "first_day": "2025-12-01",
            "last_day": "2025-12-03",
            "phases": {},
            "coverage": None,
            "statuses": None,
            "model_id": None,
            "promoted": None,
            "served_day": None,
            "predictions": None,
            "stream": None,
        }
    ]
    days = ["2025-12-02", "2025-12-03"]
    write_result(held, "r1", "ingest", {"rows": 9, "coverage": 0.5, "statuses": {"complete": 1}, "days": days}, 1.5)
    train(held, "r1", "m1", 1, 0.01)
    judge(held, "r1")
    write_result(held, "r1", "serve", {"rows": 7, "predictions": 7, "day": "2025-12-03", "model_id": "m1"}, 2.0)
    held.put_json(contract.stream_health_key("r1"), {"state": "finished"})
    held.put(contract.journal_key("r2", "s", 1), b"")
    newest, found = runs(held, held)
    assert (newest["run_id"], newest["tickers"], newest["phases"]) == ("r2", None, {})
    assert found["phases"] == {"ingest": {"wall_s": 1.5, "rows": 9}, "serve": {"wall_s": 2.0, "rows": 7}}
    told = (
        "sessions",
        "first_day",
        "coverage",
        "statuses",
        "model_id",
        "promoted",
        "served_day",
        "predictions",
        "stream",
    )
    assert [found[name] for name in told] == [
        *(2, "2025-12-02", 0.5, {"complete": 1}, "m1", True, "2025-12-03", 7, "finished")
    ]


def test_empty_buckets_have_no_history() -> None:
    assert models(bucket()) == runs(bucket(), bucket(FakeS3())) == []

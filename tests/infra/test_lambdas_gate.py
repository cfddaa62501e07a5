"""The handlers after training and after serving, with moto's S3: what they read, leave and answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from app import contract
from app.errors import ServingError, TrainingError
from app.storage import Bucket
from infra.lambda_code import stage
from infra.settings import Deployment
from tests.infra.handlers import load_handler

gate_model, promote_model, verify = (
    load_handler(name) for name in ("gate_model", "promote_model", "verify_predictions")
)
PLACE = {
    contract.ENV_MARKET_BUCKET: "market",
    contract.ENV_MODEL_BUCKET: "models",
    contract.ENV_PREDICTIONS_BUCKET: "predictions",
}
PASSES = "its skill over persistence, +0.25 on 1,560 validation windows, is not below gate.min_skill=0"
ORDER = {"run_id": "evening", "dataset_run": "noon", "settings": {"gate": {"min_skill": 0.0}}}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        for name, bucket in PLACE.items():
            monkeypatch.setenv(name, bucket)
            boto3.client("s3").create_bucket(Bucket=bucket)
        yield


def train(skill: float, current: dict[str, Any] | None = None) -> Bucket:
    """What training of run evening on the dataset of run noon leaves. current: how the model that serves compares."""
    models = Bucket("models")
    for name in contract.MODEL_FILES:
        models.put(contract.model_key("noon-1", name), b"")
    metrics = {"validation": {"skill": skill, "windows": 1560}, "current": current}
    models.put_json(contract.model_key("noon-1", contract.MODEL_METRICS), metrics)
    models.put_json(contract.candidate_key("evening"), {"model_id": "noon-1", "sha256": {}})
    return models


@pytest.mark.usefixtures("aws")
def test_a_better_model_passes_the_gate_and_is_promoted() -> None:
    models = train(0.25)
    gate = gate_model(ORDER, None)
    assert gate == {
        "promote": True,
        "reason": f"{PASSES}; no model serves yet",
        "model_id": "noon-1",
        "skill": 0.25,
        "windows": 1560,
        "serving": "",
        "serving_skill": None,
    }
    pointer = promote_model({**ORDER, "gate": gate}, None)
    assert pointer["model_id"] == "noon-1"
    assert models.get_json(contract.CURRENT_MODEL_KEY) == pointer
    repeated = gate_model(ORDER, None)
    assert repeated == {**gate, "reason": f"{PASSES}; it serves already", "serving": "noon-1"}
    assert promote_model({**ORDER, "gate": gate}, None) == pointer
    assert promote_model({**ORDER, "gate": repeated}, None) == pointer
    assert json.loads(json.dumps([gate, pointer])) == [gate, pointer]


@pytest.mark.usefixtures("aws")
def test_a_model_worse_than_persistence_does_not_pass() -> None:
    models = train(-0.01)
    assert gate_model(ORDER, None)["promote"] is False
    assert not models.exists(contract.CURRENT_MODEL_KEY)
    train(0.0)
    assert gate_model(ORDER, None)["promote"] is True


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(("theirs", "passes"), [(0.2, True), (0.25, True), (0.3, False)])
def test_a_model_that_is_worse_than_the_one_that_serves_does_not_pass(theirs: float, passes: bool) -> None:
    compared = {"model_id": "old", "skill": theirs, "windows": 1560, "candidate_skill": 0.25}
    train(0.25, compared).put_json(contract.CURRENT_MODEL_KEY, {"model_id": "old"})
    gate = gate_model(ORDER, None)
    assert (gate["promote"], gate["serving"], gate["serving_skill"]) == (passes, "old", theirs)
    assert gate["reason"].startswith(f"{PASSES}; that of model old, which serves, is ")


@pytest.mark.usefixtures("aws")
def test_a_model_that_was_promoted_since_the_gate_is_not_overwritten() -> None:
    models = train(0.25)
    gate = gate_model(ORDER, None)
    models.put_json(contract.CURRENT_MODEL_KEY, {"model_id": "night-1"})
    with pytest.raises(TrainingError, match="model night-1 has been promoted since the gate decided on noon-1"):
        promote_model({**ORDER, "gate": gate}, None)
    assert models.get_json(contract.CURRENT_MODEL_KEY) == {"model_id": "night-1"}


@pytest.mark.usefixtures("aws")
def test_two_executions_on_one_dataset_do_not_judge_each_other_s_model() -> None:
    train(0.25)
    gate = gate_model(ORDER, None)
    Bucket("models").put_json(contract.candidate_key("night"), {"model_id": "noon-2", "sha256": {}})
    with pytest.raises(TrainingError, match="the gate decided on model noon-1, but the candidate of run night is"):
        promote_model({**ORDER, "run_id": "night", "gate": gate}, None)
    assert promote_model({**ORDER, "gate": gate}, None)["model_id"] == "noon-1"


@pytest.mark.usefixtures("aws")
def test_an_incomplete_model_is_not_promoted() -> None:
    train(0.25).delete(contract.model_key("noon-1", contract.MODEL_ONNX))
    with pytest.raises(TrainingError, match=r"model noon-1 lacks model\.onnx"):
        promote_model({**ORDER, "gate": {"model_id": "noon-1", "serving": ""}}, None)


def serve(**changes: int) -> None:
    """What serving run evening leaves."""
    market, predictions = Bucket("market"), Bucket("predictions")
    result = {"predictions": 780, "horizons_min": [1, 5], "day": "2026-03-24", "model_id": "noon-1", **changes}
    market.put_json(contract.result_key("evening", "serve"), result)
    market.put_json(contract.feed_end_key("evening"), {"ticks": 390, "objects": 390})
    predictions.put(contract.predictions_key(date(2026, 3, 24), "evening", 0), b"")
    predictions.put_json(contract.LATEST_PREDICTIONS_KEY, {"schema_version": 2, "predictions": []})


@pytest.mark.usefixtures("aws")
def test_a_served_run_is_verified() -> None:
    serve()
    assert verify(ORDER, None) == {
        "predictions": 780,
        "objects": 1,
        "day": "2026-03-24",
        "model_id": "noon-1",
    }
    serve(predictions=3)
    with pytest.raises(ServingError, match="run evening has 3 predictions of 390 ticks and 2 horizons"):
        verify(ORDER, None)


@pytest.fixture(scope="module")
def asset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is deployed."""
    folder = tmp_path_factory.mktemp("lambdas")
    stage(folder, Deployment())
    return folder


@pytest.mark.parametrize("name", ["gate_model", "promote_model", "verify_predictions", "clean_up"])
def test_a_deployed_handler_needs_nothing_third_party_but_boto3(name: str, asset: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(asset)!r}); import {name}, app; print(app.__file__, *sys.modules)"
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    place, *modules = done.stdout.split()
    assert place == str(asset / "app" / "__init__.py")
    with_boto3 = {"boto3", "botocore", "jmespath", "s3transfer", "dateutil", "urllib3", "six", "awscrt", "certifi"}
    loaded = {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names)
    unexpected = loaded - with_boto3 - {"app", name}
    assert {module for module in unexpected if not module.startswith("_")} == set()

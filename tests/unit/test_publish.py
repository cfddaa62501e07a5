"""A model becomes a candidate whole, and its name tells what it was made from."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from app import contract
from app.dataset.spec import Spec
from app.errors import StorageError, TrainingError
from app.settings import Settings, changed
from app.storage import Bucket
from app.training.evaluate import evaluate
from app.training.publish import begin_training, make_model_id, publish_model, what_trains
from tests.fakes import FakeS3, bucket, client_error
from tests.models import plain_spec

SPEC = plain_spec(60)
DAYS = {"train": ["2026-03-12"], "validation": ["2026-03-20"], "test": ["2026-03-23", "2026-03-24"]}
FILES = {contract.MODEL_KERAS: b"keras", contract.MODEL_ONNX: b"onnx"}
SPLIT = evaluate(
    np.full((3, 1, 4), 0.01),
    last_price=np.full(3, 100.0),
    future_price=np.full((3, 1), 101.0),
    as_of=np.arange(3) * 60 + 1_774_300_000,
    horizons_min=(5,),
    seed=7,
    linear=np.zeros((3, 1)),
).to_json()
METRICS = {"validation": SPLIT, "test": SPLIT, "linear": {"test": SPLIT}, "windows_train": 9, "ranks": 2, "batch": 3,
           "best_epoch": 1}  # fmt: skip
NOW = datetime(2026, 3, 24, 20, 30, tzinfo=UTC)


class FailingS3(FakeS3):
    """Refuses to write keys that end in `refused`."""

    def __init__(self, refused: str) -> None:
        super().__init__()
        self.refused = refused

    def put_object(self, **call: Any) -> dict[str, Any]:
        """Keep an object, or refuse it."""
        if call["Key"].endswith(self.refused):
            raise client_error("SlowDown", "PutObject")
        return super().put_object(**call)


def publish(s3: FakeS3, files: dict[str, bytes] | None = None, model_id: str = "m") -> None:
    files = FILES if files is None else files
    publish_model(bucket(s3), "r", model_id, SPEC, Settings(), files, METRICS, DAYS, NOW)


def test_the_candidate_is_named_after_every_file_and_the_pointer_stays() -> None:
    s3 = FakeS3()
    publish(s3)
    assert s3.puts[-1] == contract.candidate_key("r")
    assert sorted(s3.puts[:-1]) == sorted(contract.model_key("m", name) for name in contract.MODEL_FILES)


@pytest.mark.parametrize("name", contract.MODEL_FILES)
def test_the_candidate_stays_when_a_file_cannot_be_written(name: str) -> None:
    s3 = FailingS3(f"new/{name}")
    publish(s3, model_id="old")
    with pytest.raises(StorageError, match="SlowDown"):
        publish(s3, model_id="new")
    assert bucket(s3).get_json(contract.candidate_key("r"))["model_id"] == "old"


def test_a_model_that_lacks_a_file_is_not_written_at_all() -> None:
    s3 = FakeS3()
    with pytest.raises(TrainingError, match=r"model m lacks model\.onnx: it is not published"):
        publish(s3, {contract.MODEL_KERAS: b"keras"})
    assert s3.puts == []


def test_the_candidate_tells_the_sha256_of_each_file() -> None:
    s3 = FakeS3()
    publish(s3)
    candidate = bucket(s3).get_json(contract.candidate_key("r"))
    assert (candidate["model_id"], candidate["trained_at"]) == ("m", "2026-03-24T20:30:00+00:00")
    assert candidate["sha256"] == {
        name: hashlib.sha256(bucket(s3).get(contract.model_key("m", name))).hexdigest() for name in contract.MODEL_FILES
    }


def test_the_spec_is_stored_with_the_settings_and_reads_back() -> None:
    s3 = FakeS3()
    publish(s3)
    stored = bucket(s3).get_json(contract.model_key("m", contract.MODEL_SPEC))
    assert Spec.from_json(stored) == SPEC
    assert (stored["model_id"], Settings.model_validate(stored["settings"])) == ("m", Settings())


def test_a_model_id_tells_run_data_and_training_apart_and_nothing_else() -> None:
    def model_id(run_id: str = "r", data: str = "data-1", *flags: str) -> str:
        return make_model_id(run_id, replace(SPEC, fingerprint=data), changed(Settings(), *flags))

    assert model_id() == model_id("r", "data-1", "serving.speed=1")
    assert model_id().startswith("r-")
    assert len({model_id(), model_id("s"), model_id("r", "data-2"), model_id("r", "data-1", "training.seed=8")}) == 4


@pytest.mark.parametrize("flag", ["checkpoint_steps=9", "checkpoints_kept=9", "stall_timeout_s=9", "timeout_s=9"])
def test_how_a_job_runs_makes_no_other_model(flag: str) -> None:
    assert what_trains(changed(Settings(), f"training.{flag}")) == what_trains(Settings())


@pytest.mark.parametrize(
    "flag",
    ["ranks=3", "batch=9", "epochs=9", "resident_mib=9", 'features=["log_range"]', "compression=fp16", "kernel=graph"],
)
def test_what_changes_a_bit_of_the_weights_makes_another_model(flag: str) -> None:
    settings = changed(Settings(), f"training.{flag}")
    assert what_trains(settings) != what_trains(Settings())
    assert make_model_id("r", SPEC, settings) != make_model_id("r", SPEC, Settings())


# --- a model that was begun -----------------------------------------------------------------------

ABOUT = {"dataset": "data-1", "settings": {"seed": 7}, "ranks": 2}


def begun(models: Bucket) -> Any:
    return models.get_json(contract.begun_key("r"))


def test_the_same_model_goes_on() -> None:
    models = bucket()
    for _ in range(2):
        begin_training(models, "r", "m", ABOUT)
        assert begun(models) == {"model_id": "m", **ABOUT}


@pytest.mark.parametrize(
    ("model_id", "changed_about", "what"),
    [
        ("m", {"ranks": 4}, "ranks"),
        ("n", {"dataset": "data-2", "settings": {"seed": 8}}, "dataset and settings"),
        ("n", {}, "model"),
    ],
)
def test_another_model_is_not_begun_before_the_first_one_has_ended(
    model_id: str, changed_about: dict[str, Any], what: str
) -> None:
    models = bucket()
    begin_training(models, "r", "m", ABOUT)
    with pytest.raises(TrainingError) as caught:
        begin_training(models, "r", model_id, ABOUT | changed_about)
    assert str(caught.value) == (
        f"run r has begun to train model m, and its {what} changed since: go back to them, use another run id, or"
        " delete s3://fake/models/begun/r.json to start anew"
    )
    assert begun(models) == {"model_id": "m", **ABOUT}
    begin_training(models, "r-2", model_id, ABOUT | changed_about)  # another run may


def test_after_a_model_has_ended_another_one_is_begun() -> None:
    s3 = FakeS3()
    begin_training(bucket(s3), "r", "m", ABOUT)
    publish(s3)
    begin_training(bucket(s3), "r", "n", ABOUT | {"ranks": 4})
    assert begun(bucket(s3))["model_id"] == "n"


def test_a_model_that_could_not_be_published_has_not_ended() -> None:
    s3 = FailingS3(contract.candidate_key("r"))
    begin_training(bucket(s3), "r", "m", ABOUT)
    with pytest.raises(StorageError, match="SlowDown"):
        publish(s3)
    assert begun(bucket(s3))["model_id"] == "m"

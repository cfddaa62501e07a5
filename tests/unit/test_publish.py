"""A model becomes a candidate whole, and its name tells what it was made from."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from app import contract
from app.dataset.spec import Spec, TickerScale
from app.errors import StorageError, TrainingError
from app.settings import Settings, changed
from app.training.publish import make_model_id, publish_model
from tests.fakes import FakeS3, bucket, client_error

SPEC = Spec(60, 5, contract.FEATURES, {}, TickerScale((0.0, 0.0), (1.0, 1.0), 1.0), "data-1")
FILES = {contract.MODEL_KERAS: b"keras", contract.MODEL_ONNX: b"onnx"}
NOW = datetime(2026, 3, 24, 20, 30, tzinfo=UTC)


class FailingS3(FakeS3):
    """Refuses to write keys that end in `refused`."""

    def __init__(self, refused: str) -> None:
        super().__init__()
        self.refused = refused

    def put_object(self, **call: Any) -> None:
        """Keep an object, or refuse it."""
        if call["Key"].endswith(self.refused):
            raise client_error("SlowDown", "PutObject")
        super().put_object(**call)


def publish(s3: FakeS3, files: dict[str, bytes] | None = None, model_id: str = "m") -> None:
    publish_model(bucket(s3), "r", model_id, SPEC, Settings(), FILES if files is None else files, {"loss": 0.5}, NOW)


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
        spec = Spec(60, 5, contract.FEATURES, {}, SPEC.default_scale, data)
        return make_model_id(run_id, spec, changed(Settings(), *flags))

    assert model_id() == model_id("r", "data-1", "serving.speed=1")
    assert model_id().startswith("r-")
    assert len({model_id(), model_id("s"), model_id("r", "data-2"), model_id("r", "data-1", "training.seed=8")}) == 4

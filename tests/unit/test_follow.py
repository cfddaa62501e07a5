"""Which model the stream goes on with when another one is promoted."""

from __future__ import annotations

import hashlib

import pytest

from app import contract
from app.dataset.spec import Spec
from app.serving.follow import ModelFollower
from app.storage import Bucket
from tests.fakes import FakeS3, client_error
from tests.models import plain_spec, tiny_onnx

WINDOW = 3
SPEC = plain_spec(WINDOW, (1, 5))


def publish(model_id: str, spec: Spec = SPEC, *, onnx: bytes | None = None) -> None:
    """Store a model and let the pointer name it, as the gate does."""
    body = tiny_onnx(WINDOW, len(spec.horizons_min), len(spec.features)) if onnx is None else onnx
    Bucket("models").put(contract.model_key(model_id, contract.MODEL_ONNX), body)
    Bucket("models").put_json(contract.model_key(model_id, contract.MODEL_SPEC), spec.to_json())
    sha256 = {contract.MODEL_ONNX: hashlib.sha256(body).hexdigest()}
    Bucket("models").put_json(contract.CURRENT_MODEL_KEY, {"model_id": model_id, "sha256": sha256})


@pytest.fixture
def follower(s3: FakeS3) -> ModelFollower:
    publish("old")
    return ModelFollower(Bucket("models"), "old")


def told(follower: ModelFollower) -> tuple[str, str]:
    follower.look()
    return follower.model_id, follower.refused


def test_a_promoted_model_is_taken_up_and_the_next_one_after_it(follower: ModelFollower) -> None:
    assert told(follower) == ("old", "")
    for name in ("new", "newer"):
        publish(name)
        assert told(follower) == (name, "")


@pytest.mark.parametrize(
    ("onnx", "why"),
    [
        (b"", "model bad is not taken up: it cannot forecast: "),
        (b"nonsense", "model bad is not taken up: it cannot forecast: "),
        (tiny_onnx(WINDOW + 1, 2), "model bad is not taken up: it cannot forecast: "),
        (tiny_onnx(WINDOW, 1), "model bad is not taken up: "),
    ],
    ids=["empty", "not a network", "another window", "another number of horizons"],
)
def test_a_broken_model_leaves_the_old_one_in_use_and_says_why(follower: ModelFollower, onnx: bytes, why: str) -> None:
    publish("bad", onnx=onnx)
    model_id, refused = told(follower)
    assert (model_id, refused[: len(why)]) == ("old", why)
    assert "\n" not in refused
    assert told(follower) == ("old", refused)
    publish("good")
    assert told(follower) == ("good", "")


def test_a_model_that_is_not_there_or_is_not_what_was_promoted_is_refused(follower: ModelFollower) -> None:
    Bucket("models").put_json(contract.CURRENT_MODEL_KEY, {"model_id": "gone"})
    assert told(follower)[1].startswith("model gone is not taken up: s3://models/models/gone/model.onnx does not exist")
    publish("changed")
    Bucket("models").put(contract.model_key("changed", contract.MODEL_ONNX), tiny_onnx(WINDOW, 2) + b" ")
    assert told(follower)[1] == "model changed is not taken up: models/changed/model.onnx is not what was promoted"


@pytest.mark.parametrize(
    "spec",
    [
        plain_spec(WINDOW + 1, (1, 5)),
        plain_spec(WINDOW, (1, 5), contract.DEFAULT_FEATURES[::-1]),
        plain_spec(WINDOW, (1, 2)),
    ],
    ids=["window", "features", "horizons"],
)
def test_a_model_that_cannot_go_on_from_the_state_waits_for_the_next_stream(
    follower: ModelFollower, spec: Spec
) -> None:
    publish("other", spec, onnx=tiny_onnx(spec.window_min, 2, len(spec.features)))
    model_id, refused = told(follower)
    assert model_id == "old"
    assert refused.endswith("for which this stream keeps its state: the stream of the next run takes it up")


@pytest.mark.parametrize("pointer", [b"{", b"{}", b"[]", b'{"model_id": "new", "sha256": null}'])
def test_a_pointer_that_cannot_be_read_leaves_the_old_model_in_use(follower: ModelFollower, pointer: bytes) -> None:
    publish("new")
    Bucket("models").put(contract.CURRENT_MODEL_KEY, pointer)
    assert told(follower) == ("old", "models/current.json names no model: promote one again")
    publish("newer")
    assert told(follower) == ("newer", "")


def test_a_spec_that_is_cut_off_is_refused(follower: ModelFollower) -> None:
    publish("new")
    Bucket("models").put(contract.model_key("new", contract.MODEL_SPEC), b'{"window_min":')
    assert told(follower)[1].startswith("model new is not taken up: model new was trained by another version")


def test_without_the_old_model_s_spec_the_new_one_is_refused_and_not_forgotten(follower: ModelFollower) -> None:
    publish("new")
    Bucket("models").delete(contract.model_key("old", contract.MODEL_SPEC))
    assert told(follower)[1].startswith("model new is not taken up: s3://models/models/old/spec.json does not exist")


def test_the_old_model_promoted_again_ends_the_alarm(follower: ModelFollower) -> None:
    publish("bad", onnx=b"")
    follower.look()
    publish("old")
    assert told(follower) == ("old", "")


def test_an_s3_that_does_not_answer_changes_nothing(follower: ModelFollower, s3: FakeS3) -> None:
    publish("new")
    s3.error = client_error("SlowDown", "GetObject")
    assert told(follower) == ("old", "")
    s3.error = None
    assert told(follower) == ("new", "")


def test_a_pointer_that_is_gone_leaves_the_old_model_in_use(follower: ModelFollower) -> None:
    Bucket("models").delete(contract.CURRENT_MODEL_KEY)
    model_id, refused = told(follower)
    assert (model_id, refused.partition(":")[0]) == ("old", "no model has been promoted")

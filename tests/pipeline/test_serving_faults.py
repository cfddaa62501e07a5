"""The stream is killed, cut off from S3, stopped and given other models: consumers see nothing of it."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from app import contract
from app.storage import Bucket
from embedded.aws.account import client
from tests.pipeline.conftest import World
from tests.pipeline.streaming_job import StreamingJob, assert_same_predictions, predictions

VICTIMS = ("driver", "worker", "jvm")
STOPPED = 128 + signal.SIGTERM
STARTED_S = 15.0
"""About when a stream has written its first predictions."""


def fed(served: World, run_id: str, **variables: str) -> World:
    """Another run whose ticks all lie in S3."""
    run = served.copy_run(run_id).with_run(run_id, **variables)
    run.must("feed", "--speed", "1000000")
    return run


def stream_through_kills(run: World, whole: int, victims: Sequence[str], checkpoint: Path, limit: int) -> None:
    """Kill each victim at a random moment, start the stream again where it has ended, until it is served.

    Half of the moments are counted from the start of the process, so that some lie in its start and in the repetition
    of what was not done, the others from new predictions. whole: predictions that there will be; limit: minutes of a
    micro-batch.
    """
    arguments = ("--no-feed", "--checkpoint", str(checkpoint), "--set", f"serving.micro_batch_limit={limit}")
    seed = time.time_ns()
    print(f"seed {seed}")  # pytest shows it when the test fails
    moments, rows, killed = random.Random(seed), 0, 0
    job = StreamingJob(run, *arguments)
    for done, victim in enumerate(victims):
        if moments.random() < 0.5:
            time.sleep(moments.uniform(0, STARTED_S))
        else:
            rows = job.wait_for_rows(rows + moments.randint(1, max(1, (whole - rows) // (len(victims) - done + 1))))
            time.sleep(moments.uniform(0, 0.5))
        killed += job.kill(victim, moments)
        if victim != "worker" or job.process.poll() is not None:
            status, errors = job.ended()
            if status == 0:  # served before the kill
                break
            assert victim != "jvm" or errors.splitlines()[-1].startswith("stockflow: "), errors
            job = StreamingJob(run, *arguments)
    status, errors = job.ended()
    if status != 0 and "worker" in victims:  # the process that lists the ticks was one of them
        status, errors = StreamingJob(run, *arguments).ended()
    assert status == 0, errors
    assert killed > len(victims) / 2  # the last ones may come when all is predicted


def test_a_stream_whose_driver_java_and_workers_are_killed_loses_and_doubles_nothing(
    served: World, tmp_path: Path
) -> None:
    """Three times each."""
    run = fed(served, "killed")
    stream_through_kills(run, len(predictions(served)), VICTIMS * 3, tmp_path, limit=8)
    assert_same_predictions(run, served)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_stream_that_is_killed_twenty_times_loses_and_doubles_nothing(
    served: World, tmp_path: Path, victim: str
) -> None:
    run = fed(served, f"killed-often-{victim}")
    stream_through_kills(run, len(predictions(served)), [victim] * 20, tmp_path, limit=2)
    assert_same_predictions(run, served)


@contextmanager
def relayed(port: int, target: int) -> Iterator[subprocess.Popen[bytes]]:
    """Connections to `port` lead to `target` meanwhile."""
    command = [sys.executable, "-m", "tests.pipeline.relay", str(port), str(target)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_an_s3_that_is_gone_for_ten_seconds_is_waited_for(served: World, tmp_path: Path) -> None:
    target = urlsplit(served.environ[contract.ENV_AWS_ENDPOINT_URL]).port
    assert target is not None
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    cut = {contract.ENV_AWS_ENDPOINT_URL: f"http://127.0.0.1:{port}"}
    run = fed(served, "cut-off")
    with relayed(port, target):
        arguments = ("--no-feed", "--checkpoint", str(tmp_path), "--set", "serving.micro_batch_limit=20")
        job = StreamingJob(run.with_run("cut-off", **cut), *arguments)
        job.run = run
        job.wait_for_rows(100)
    time.sleep(10)
    with relayed(port, target):
        status, errors = job.ended()
    assert status == 0, errors
    assert_same_predictions(run, served)


def test_a_stream_that_is_told_to_stop_finishes_its_micro_batch_and_goes_on_later(
    served: World, tmp_path: Path
) -> None:
    run = fed(served, "stopped")
    arguments = ("--no-feed", "--checkpoint", str(tmp_path), "--set", "serving.micro_batch_limit=20")
    job = StreamingJob(run, *arguments)
    job.wait_for_rows(1)
    psutil.Process(job.process.pid).send_signal(signal.SIGTERM)
    status, _ = job.ended()
    assert status == STOPPED
    health = run.market.get_json(contract.stream_health_key(run.run_id))
    assert (health["state"], health["predictions"]) == ("stopped", len(predictions(run)))
    assert len(predictions(run)) < len(predictions(served))
    changed = run.stockflow("serve", *arguments, "--set", "serving.buckets=4")
    assert changed.returncode == 8
    assert changed.stderr.splitlines()[-1] == (
        "stockflow: the stream of run stopped was begun with serving.buckets=2, to which its state belongs, and not 4:"
        " set it so, or start a new run id"
    )
    run.must("serve", *arguments)
    assert_same_predictions(run, served)


@pytest.mark.chaos
def test_a_stream_that_was_done_but_for_its_result_ends_when_it_is_started_again(served: World, tmp_path: Path) -> None:
    run = fed(served, "done")
    end_key = contract.feed_end_key(run.run_id)
    end = run.market.get(end_key)
    run.market.delete(end_key)
    arguments = ("--no-feed", "--checkpoint", str(tmp_path))
    job = StreamingJob(run, *arguments)
    job.wait_for_rows(len(predictions(served)))
    psutil.Process(job.process.pid).send_signal(signal.SIGTERM)
    assert job.ended()[0] == STOPPED
    run.market.put(end_key, end)
    run.must("serve", *arguments, "--set", "serving.idle_timeout_s=5")
    assert_same_predictions(run, served)


def test_a_stream_whose_checkpoint_is_lost_begins_again_and_doubles_nothing(served: World, tmp_path: Path) -> None:
    run = fed(served, "lost")
    job = StreamingJob(run, "--no-feed", "--checkpoint", str(tmp_path / "a"), "--set", "serving.micro_batch_limit=60")
    job.wait_for_rows(1)
    job.process.kill()
    job.ended()
    assert 0 < len(predictions(run)) < len(predictions(served))
    run.must("serve", "--no-feed", "--checkpoint", str(tmp_path / "b"))
    assert_same_predictions(run, served)


def test_a_promoted_model_is_taken_up_between_micro_batches_and_a_broken_one_is_not(
    served: World, tmp_path: Path
) -> None:
    models = own_models(served)
    first = str(models.get_json(contract.CURRENT_MODEL_KEY)["model_id"])
    run = served.copy_run("follows").with_run("follows", **{contract.ENV_MODEL_BUCKET: models.name})
    job = StreamingJob(run, "--checkpoint", str(tmp_path), "--speed", "900")
    rows = job.wait_for_rows(100)
    promote(models, first, "second")
    rows = job.wait_for_rows(rows + 400)
    promote(models, first, "broken", onnx=b"nonsense")
    status, errors = job.ended()
    assert status == 0, errors
    found = predictions(run)
    assert set(found["model_id"]) == {first, "second"}
    one_model = found.groupby("as_of")["model_id"].nunique()
    assert (one_model == 1).all()
    ordered = found.sort_values("as_of")["model_id"].tolist()
    assert ordered == sorted(ordered, key=[first, "second"].index)
    assert "model broken is not taken up: it cannot forecast: " in errors
    health = run.market.get_json(contract.stream_health_key(run.run_id))
    assert (health["state"], health["model_id"]) == ("finished", "second")
    assert health["refused"].startswith("model broken is not taken up: ")
    unnamed = found.drop(columns=["model_id", "produced_at"])
    expected = predictions(served).drop(columns=["model_id", "produced_at"])
    assert unnamed[["ticker", "as_of", "horizon_min"]].equals(expected[["ticker", "as_of", "horizon_min"]])


def own_models(served: World) -> Bucket:
    """A bucket with the model of `served` alone, as the current one."""
    s3 = client("s3", served.environ[contract.ENV_AWS_ENDPOINT_URL])
    s3.create_bucket(Bucket="models-to-follow")
    models = Bucket("models-to-follow", s3)
    pointer = served.models.get_json(contract.CURRENT_MODEL_KEY)
    models.put_json(contract.CURRENT_MODEL_KEY, pointer)
    for name in contract.MODEL_FILES:
        key = contract.model_key(pointer["model_id"], name)
        models.put(key, served.models.get(key))
    return models


def promote(models: Bucket, model_id: str, copy: str, **changed: bytes) -> None:
    """Let a copy of a model serve."""
    for name in (contract.MODEL_ONNX, contract.MODEL_SPEC):
        body = changed.get(name.removeprefix("model."), models.get(contract.model_key(model_id, name)))
        models.put(contract.model_key(copy, name), body)
    models.put(contract.CURRENT_MODEL_KEY, json.dumps({"model_id": copy}).encode())

"""A day and a night of minutes, replayed fast: nothing grows."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import contract
from app.settings import ServingSettings
from app.storage import Bucket
from embedded.aws.account import client
from embedded.services import clean_environ, start_aws
from tests.models import plain_spec, tiny_onnx
from tests.pipeline.soak_stream import A_BATCH, MODEL_ID

MINUTES, TICKERS, WINDOW = 24 * 60, 100, 60
GROWTH = 1.1


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """The environment of an embedded S3 that holds a model."""
    environ = clean_environ(os.environ)
    aws = start_aws(0, environ)
    try:
        s3 = client("s3", aws.url)
        for name in ("market", "models", "predictions"):
            s3.create_bucket(Bucket=name)
        models = Bucket("models", s3)
        models.put(contract.model_key(MODEL_ID, contract.MODEL_ONNX), tiny_onnx(WINDOW))
        models.put_json(
            contract.model_key(MODEL_ID, contract.MODEL_SPEC), plain_spec(WINDOW, target_std=1e-6).to_json()
        )
        models.put_json(contract.CURRENT_MODEL_KEY, {"model_id": MODEL_ID})
        yield {**environ, contract.ENV_AWS_ENDPOINT_URL: aws.url}
    finally:
        aws.stop()


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_memory_checkpoint_and_objects_do_not_grow_in_twenty_four_hours(s3: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.soak_stream", str(tmp_path / "checkpoint"), str(TICKERS), str(MINUTES)],
        env=s3,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(told) >= MINUTES // A_BATCH
    assert sum(one["predictions"] for one in told) == (MINUTES - WINDOW + 1) * TICKERS
    middle, last = told[len(told) // 2 : 3 * len(told) // 4], told[3 * len(told) // 4 :]
    for name in ("rss_mib", "checkpoint_bytes"):
        before, after = (statistics.median(one[name] for one in part) for part in (middle, last))
        print(f"{name}: {before:,.0f} -> {after:,.0f}")
        assert after < GROWTH * before
    days = -(-MINUTES // 390)
    assert told[-1]["objects"] <= sum(one["predictions"] for one in told) / ServingSettings().object_rows + days

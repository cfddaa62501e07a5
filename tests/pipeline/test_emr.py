"""What the EMR step runs, on this machine: its environment, unpacked, under Spark's own spark-submit."""

from __future__ import annotations

import base64
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyspark
import pytest

from app import contract
from app.processes import find_program
from tests.pipeline.conftest import World
from tests.pipeline.streaming_job import predictions

ROOT = Path(__file__).parents[2]
SPARK_HOME = Path(pyspark.__file__).parent
NO_INDEX = ("Failed to fetch", "error sending request", "Could not connect")
THROUGH_ARGUMENTS = (contract.ENV_AWS_ENDPOINT_URL, "AWS_DEFAULT_REGION")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cluster's Python environment as `make emr` makes it, unpacked behind a link as YARN does it.

    Not in build/emr: what lies there goes into every template, which tests make at the same time.
    """
    python = shutil.which("python3.11")
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=False).stdout if python else "none"
    if not version.startswith("Python 3.11.") or platform.machine() != "x86_64":
        pytest.skip(f"no Python 3.11 for x86_64 called python3.11 on PATH: {version.strip()} on {platform.machine()}")
    out = ROOT / "build" / "emr-of-tests"
    built = subprocess.run(
        [sys.executable, "scripts/build_emr.py", str(out)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if any(text in built.stderr for text in NO_INDEX):
        pytest.skip("the package index cannot be reached")
    assert built.returncode == 0, built.stderr
    folder = tmp_path_factory.mktemp("filecache")
    tar = find_program("tar", "tar")  # as YARN unpacks it
    subprocess.run([tar, "-xzf", out / "environment.tar.gz", "-C", folder], check=True)
    link = tmp_path_factory.mktemp("container") / "environment"
    link.symlink_to(folder)
    return link


def submit(world: World, environment: Path, checkpoint: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The step's command, with a master on this machine; what it is told about the run is in its arguments alone."""
    told = {name: value for name, value in world.environ.items() if name.startswith("STOCKFLOW_")}
    told |= {name: world.environ[name] for name in THROUGH_ARGUMENTS}
    settings = base64.b64encode(json.dumps({"serving": {"trigger_s": 0.2}}).encode()).decode()
    command = [str(SPARK_HOME / "bin/spark-submit"), "--master", "local[2]", "--deploy-mode", "client"]
    command += ["--conf", f"spark.pyspark.python={environment.name}/bin/python", str(ROOT / "emr/stream.py")]
    command += [word for name, value in told.items() for word in ("--env", f"{name}={value}")]
    command += ["--env-base64", f"{contract.ENV_SETTINGS}={settings}", "--checkpoint", checkpoint, *options]
    kept = {name: value for name, value in world.environ.items() if name not in told}
    return subprocess.run(
        command,
        cwd=environment.parent,
        env={**kept, "SPARK_HOME": str(SPARK_HOME), "SPARK_LOCAL_IP": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_environment_brings_all_of_serving_but_spark(environment: Path, tmp_path: Path) -> None:
    """From another working folder and through a link to the program itself."""
    (tmp_path / "python").symlink_to(environment / "bin/python")
    code = (
        "import app.cli, app.serving.run, onnxruntime, pandas.testing, pyspark; print(app.__file__, pyspark.__file__)"
    )
    zips = sorted(str(path) for path in (SPARK_HOME / "python/lib").glob("*.zip"))  # what Spark puts on PYTHONPATH
    done = subprocess.run(
        ["./python", "-W", "error", "-c", code],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(zips)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    app_file, pyspark_file = done.stdout.split()
    assert app_file == str(environment.resolve() / "lib/app/__init__.py")
    assert pyspark_file.startswith(str(SPARK_HOME / "python/lib"))


class Streamed(NamedTuple):
    """A run that spark-submit has streamed, what it printed, where its checkpoint was, and how long all took."""

    run: World
    done: subprocess.CompletedProcess[str]
    checkpoint: Path
    took_s: float


@pytest.fixture(scope="session")
def streamed(served: World, environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Streamed:
    """Streamed while the feed was at work."""
    run = served.copy_run("submitted")
    checkpoint = tmp_path_factory.mktemp("a folder") / "streams"
    started = time.monotonic()
    with run.popen("feed", "--speed", "1500") as feed:
        done = submit(run, environment, f"file://{checkpoint}")
        feed.communicate(timeout=60)
    return Streamed(run, done, checkpoint, time.monotonic() - started)


def test_spark_submit_with_the_built_environment_makes_the_predictions_of_serve(
    served: World, streamed: Streamed
) -> None:
    run, done, checkpoint, _ = streamed
    assert done.returncode == 0, done.stderr
    columns = [name for name in predictions(served) if name != "produced_at"]
    pd.testing.assert_frame_equal(predictions(run)[columns], predictions(served)[columns])
    assert run.result("serve")["predictions"] == len(predictions(run))
    assert list(checkpoint.iterdir()) == []  # served: no longer needed


def test_each_micro_batch_publishes_its_predictions_and_the_lag_of_the_stream(streamed: Streamed) -> None:
    run, done, _, took_s = streamed
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"_aws"')]
    published = [line for line in said if line.get(contract.METRIC_PREDICTIONS)]  # none in a minute without a batch
    assert len(published) >= 1
    times = [line[contract.METRIC_BATCH] for line in said if contract.METRIC_BATCH in line]
    assert 0 < min(times, default=0) <= max(times, default=0) <= took_s
    assert sum(line[contract.METRIC_PREDICTIONS] for line in published) == len(predictions(run))
    lags_s = [line[contract.METRIC_STREAM_LAG] for line in said if contract.METRIC_STREAM_LAG in line]
    assert 0 <= min(lags_s) <= max(lags_s) <= took_s + 1  # S3 tells whole seconds


def test_the_step_fails_with_the_status_of_serve(streamed: Streamed, environment: Path, tmp_path: Path) -> None:
    run, *_ = streamed
    again = submit(run, environment, str(tmp_path))
    assert again.returncode == 8
    assert f"stockflow: run {run.run_id} has been served: start a new run id" in again.stdout.splitlines()  # of both

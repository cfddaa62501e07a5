"""`stockflow run`, as a person starts it: the whole way on real bars, and what an interruption leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tests.pipeline.grants import check_grants
from tests.pipeline.stack import until

SMALL = (
    *("--sim", "tickers=4", "--sim", "sessions=5", "--set", "dataset.validation_days=1"),
    *("--set", "training.epochs=1", "--set", "serving.speed=100000"),
)
ANY_MODEL = ("--set", "gate.min_skill=-1")
"""So short a training is for the way to serving, not for the model."""
EVERY_STATE = [
    *("ValidateInput", "IfClosed", "Run", "IfPlan", "PlanShards", "IfIngest", "ScaleFleet", "IfOneShard"),
    *("IngestShards", "CompactBars", "ReleaseFleet", "CheckCoverage", "IfDataset", "BuildDataset", "IfTrain"),
    *("TrainModel", "GateModel", "IfBetter", "PromoteModel", "IfServe", "CreateCluster", "ServeSession"),
    *("StreamPredictions", "FeedTicks", "VerifyPredictions", "ReleaseCluster", "Finished", "Succeeded"),
]
"""Those that the definition enters for {}, but for the one of a single shard."""


def start(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "app.cli", "run", *arguments],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_real_bars_go_all_the_way_to_predictions(real_bars_path: Path, tmp_path: Path) -> None:
    """Four tickers x 9 days; BA stops early on the last day, AAPL and MSFT have faulty volumes."""
    out = tmp_path / "run"
    process = start(
        "--market", str(real_bars_path), "--tickers", "AAPL,BA,MSFT,DIS", "--out", str(out),
        "--set", "training.epochs=1", "--set", "serving.speed=100000", *ANY_MODEL,
    )  # fmt: skip
    said, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    summary = json.loads((out / "summary.json").read_text())
    assert [(p["name"], p["status"]) for p in summary["phases"]] == [
        (name, "succeeded") for name in ("ingest", "dataset", "train", "promote", "serve")
    ]
    assert all(p["rows"] > 0 and p["wall_s"] > 0 for p in summary["phases"])
    assert summary["tickers_requested"] == 4
    assert summary["tickers_by_status"] == {"complete": 3, "partial": 1, "delisted": 0, "failed": 0}
    assert summary["tickers_complete"] == 3
    assert len(summary["days"]) == 9
    assert summary["volume_fault_days"] == ["2026-03-16", "2026-03-17", "2026-03-18", "2026-03-19"]
    assert summary["volume_faults"] == 8
    assert summary["ranks"] == 2
    assert summary["rank_weight_max_diff"] == 0
    assert summary["promoted"] is True
    assert " validation windows, is not below gate.min_skill=-1; no model serves yet" in summary["promotion_reason"]
    assert 0 < summary["mae_usd"] < 2 * summary["mae_persistence_usd"]
    held = pq.read_table(out / "predictions").to_pandas()
    assert not held.duplicated(["ticker", "as_of", "horizon_min"]).any()
    assert held.groupby("ticker").size().to_dict() == {"AAPL": 390, "BA": 167, "DIS": 390, "MSFT": 390}
    assert summary["predictions"] == len(held) == 1337
    assert (out / "models" / summary["model_id"] / "model.onnx").is_file()
    assert "coverage: 4 tickers x 9 sessions: 3 complete, 1 partial" in said
    assert str(out / "summary.json") in said
    assert summary["execution"]["status"] == "SUCCEEDED"
    assert sorted(summary["execution"]["states"]) == sorted(EVERY_STATE)  # branches run side by side
    assert summary["execution"]["retries"] == 0
    assert summary["deployment"]["not_created"] == {}
    judged = json.loads((out / "iam.json").read_text())
    check_grants(judged)
    assert summary["iam"] == {
        "calls": judged["role_calls"], "calls_without_grant": 0, "unused_grants_unjustified": 0
    }  # fmt: skip
    assert {path.name for path in (out / "logs").iterdir()} >= {"ingest.log", "dataset.log", "train.log", "serve.log"}


def command_lines(pid: int) -> list[str]:
    """Of all that a process has started."""
    lines = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return lines


def test_an_interrupted_run_leaves_no_process_and_says_where_it_stopped(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(*SMALL, *ANY_MODEL, "--out", str(out))
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("TrainModel: started"):
            break
    until(lambda: sum("train.py" in line and "mpirun" not in line for line in command_lines(process.pid)) >= 2)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().startswith("stockflow: train: interrupted")
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert summary["execution"]["status"] == "ABORTED"
    assert [p["status"] for p in summary["phases"]] == [*["succeeded"] * 2, "interrupted", *["not started"] * 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".run.lock", "run"]


@pytest.mark.chaos
def test_a_run_that_fails_says_in_which_state_and_why(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(*SMALL, "--tickers", "SIM001,NOSUCH", "--out", str(out))
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 4
    assert errors.startswith(
        "stockflow: CheckCoverage: UniverseError: Yahoo knows no ticker 'NOSUCH': correct the universe"
    )
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == summary["phases"][0]["status"] == "failed"
    assert summary["execution"]["states"][-3:] == ["Release", "Notify", "Failed"]
    assert summary["error"] in errors


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ["--tickers", ""],
            4,
            "the universe is empty: name at least one ticker, a file of tickers, dow30, sp100 or sp500",
        ),
        (["--tickers", "AAPL,no good!"], 4, "'good!' is no ticker: use letters, digits, '-', '.', '^' and '='"),
        (["--market", "/no/such/file.parquet"], 6, "embedded Yahoo: /no/such/file.parquet: there is no such file"),
        (
            ["--set", "training.epochs=0"],
            2,
            "setting training.epochs=0: input should be greater than or equal to 1"
            " (passes over the training windows: whole number, 1 to 1,000)",
        ),
        (["--set", "epochs=1"], 2, "--set 'epochs=1' is not of the form group.name=value, e.g. training.epochs=3"),
        (["--run-id", "a/b"], 2, "STOCKFLOW_RUN_ID='a/b': use up to 64 letters, digits, '.', '_' and '-'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    process = start(*arguments, "--out", str(tmp_path / "run"))
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (status, f"stockflow: {message}\n")
    assert not (tmp_path / "run").exists()


def test_a_port_in_use_is_named_with_the_flag_that_chooses_another(tmp_path: Path, taken_port: int) -> None:
    process = start("--s3-port", str(taken_port), "--out", str(tmp_path / "run"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 10
    assert errors == f"stockflow: port {taken_port} is in use: choose another with --s3-port, or 0 for any free one\n"


@pytest.mark.chaos  # test_up.py kills the one of a stack that stays
def test_an_embedded_aws_that_dies_under_a_run_ends_it_and_all_its_tasks(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(*SMALL, "--out", str(out))
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("IngestShards: started"):
            break
    family = psutil.Process(process.pid).children(recursive=True)
    server = next(p for p in family if "embedded.aws.server" in p.cmdline())
    server.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 10
    assert errors.startswith("stockflow: the embedded AWS at http://127.0.0.1:")
    assert "does not answer any more" in errors
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["status"], summary["phases"][0]["status"]) == ("failed", "failed")
    assert "does not answer any more" in summary["error"]
    assert summary["iam"]["calls"] is None
    assert "IngestShards" in summary["execution"]["states"]


@pytest.mark.parametrize("program", ["mpirun", "java"])
def test_a_missing_program_is_named_before_anything_starts(tmp_path: Path, program: str) -> None:
    for name in {"mpirun", "java"} - {program}:
        (tmp_path / name).symlink_to("/bin/true")
    process = start("--out", str(tmp_path / "run"), environ={**os.environ, "PATH": str(tmp_path), "JAVA_HOME": ""})
    _, errors = process.communicate(timeout=60)
    package = {"mpirun": "openmpi-bin", "java": "openjdk-17-jre-headless"}[program]
    expected = f"stockflow: {program} is not installed or not on PATH: type `apt-get install {package}`\n"
    assert (process.returncode, errors) == (9, expected)

"""The reading commands: where they read, what they print for people and for programs, and what if there is nothing."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import contract
from app.cli import main
from app.cli_read import READ_COMMANDS
from app.ingest.plan import write_plan
from app.serving.latest import LatestPredictions
from app.storage import Bucket
from app.workflow.results import write_result
from embedded.local import Local
from embedded.summary import write_run_folder
from tests.fakes import FakeS3, bucket, make_sessions
from tests.predictions import predict, store

MONDAY, TUESDAY = make_sessions(390, 390)
TICKERS = ("AAPL", "BRK-B", "MSFT")
NAMES = [str(command.name) for command in READ_COMMANDS]
BUCKETS = (contract.ENV_MARKET_BUCKET, contract.ENV_MODEL_BUCKET, contract.ENV_PREDICTIONS_BUCKET)
HEAVY = {"boto3", "numpy", "pandas", "polars", "pyarrow", "rich", "embedded", "pydantic"}


class Stockflow:
    """Runs the entry point in this process, in a folder of its own, without a bucket in the environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[Any, str, str]:
        """Exit status and what was printed."""
        self._monkeypatch.setattr(sys, "argv", ["stockflow", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = self._capsys.readouterr()
        return caught.value.code, out, err

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """What a command prints with --json."""
        status, out, _ = self(*arguments, "--json")
        assert status == 0
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def stockflow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, s3: FakeS3
) -> Iterator[Stockflow]:
    monkeypatch.chdir(tmp_path)
    for name in BUCKETS:
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    yield Stockflow(monkeypatch, capsys)
    signal.signal(signal.SIGTERM, before)


def fill(held: Bucket) -> None:
    """A run that trained, was promoted and served two sessions."""
    random = np.random.default_rng(1)
    for session in (MONDAY, TUESDAY):
        closes = {name: 100 * np.exp(random.normal(0, 1e-3, 30).cumsum()) for name in TICKERS}
        table = predict(session, closes, horizons=(1, 5), width=0.002)
        store(held, session, table)
        LatestPredictions(held).write(table)
    write_plan("r", TICKERS, held, (MONDAY, TUESDAY), shards=1, request_days=7)
    days = [MONDAY.day.isoformat(), TUESDAY.day.isoformat()]
    write_result(held, "r", "ingest", {"rows": 9, "coverage": 1.0, "statuses": {"complete": 3}, "days": days}, 2.4)
    write_result(held, "r", "serve", {"rows": 360, "predictions": 360, "day": days[-1], "model_id": "m"}, 3.0)
    metrics = {"validation": {"skill": 0.01}, "test": {"skill": 0.02, "horizons": {"1": {"significant": False}}}}
    held.put_json(contract.model_key("m", contract.MODEL_METRICS), metrics)
    held.put_json(contract.candidate_key("r"), {"model_id": "m", "trained_at": "2026-01-01T10:30:00+00:00"})
    decision = {"promote": True, "reason": "it is not below gate.min_skill=0"}
    held.put_json(contract.model_key("m", contract.MODEL_DECISION), decision)
    held.put_json(contract.CURRENT_MODEL_KEY, {"model_id": "m"})


@pytest.fixture
def filled(stockflow: Stockflow, s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> Stockflow:
    """Where the environment names one bucket for all."""
    fill(bucket(s3))
    for name in BUCKETS:
        monkeypatch.setenv(name, "all")
    return stockflow


def leave_run(folder: Path, s3: FakeS3) -> None:
    """As `stockflow run` does."""
    logs = folder / "logs"
    logs.mkdir(parents=True)
    buckets = {"market": bucket(s3), "model": bucket(s3), "predictions": bucket(s3)}
    write_run_folder(folder / "run", {"run_id": "r"}, buckets, "r", logs, {})


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_help_has_an_example_and_imports_nothing_heavy(name: str) -> None:
    code = f"import sys; from app.cli import cli; cli(['{name}', '--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    *told, loaded = done.stdout.splitlines()
    assert f"    stockflow {name}" in "\n".join(told)
    assert not {module.partition(".")[0] for module in loaded.split()} & HEAVY


# --- where they read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_where_there_is_nothing_one_is_told_what_makes_something(stockflow: Stockflow, name: str) -> None:
    status, out, err = stockflow(name)
    assert (status, out) == (2, "")
    assert err.startswith(
        "stockflow: there is nothing to read yet: type `make run`, or `stockflow up`, or set STOCKFLOW_"
    )
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("predictions", "there are no predictions in the environment's buckets yet: run the phases"),
        ("accuracy", "there are no predictions in the environment's buckets yet: run the phases"),
        ("models", "there is no model in the environment's buckets: run the phases"),
        ("runs", "there is no run in the environment's buckets: run the phases"),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_an_empty_bucket_says_what_fills_it(
    stockflow: Stockflow, monkeypatch: pytest.MonkeyPatch, name: str, message: str, flags: tuple[str, ...]
) -> None:
    for variable in BUCKETS:
        monkeypatch.setenv(variable, "empty")
    status, out, err = stockflow(name, *flags)
    assert (status, out, err.count("\n")) == (0, "", 1)
    assert err.startswith(message)


def test_a_bucket_that_the_environment_does_not_name_is_told(
    stockflow: Stockflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(contract.ENV_PREDICTIONS_BUCKET, "predictions")
    expected = "stockflow: set STOCKFLOW_MODEL_BUCKET, as the other buckets are named in the environment\n"
    assert stockflow("models") == (2, "", expected)


def test_without_buckets_the_last_run_is_read(stockflow: Stockflow, s3: FakeS3, tmp_path: Path) -> None:
    fill(bucket(s3))
    leave_run(tmp_path / "build", s3)
    s3.error = AssertionError("S3 is not asked")
    for name in NAMES:
        status, out, err = stockflow(name)
        assert (status, err) == (0, "")
        assert ": build/run (r)" in out
    assert len(stockflow.rows("predictions")) == 6
    assert stockflow("predictions", "--follow")[::2] == (
        2,
        "stockflow: build/run is a run's folder, to which nothing is added: follow a bucket\n",
    )


def test_a_stack_that_is_up_comes_before_the_last_run(stockflow: Stockflow, s3: FakeS3, tmp_path: Path) -> None:
    leave_run(tmp_path / "build", s3)
    fill(bucket(s3))
    up = tmp_path / "build" / "up"
    up.mkdir()
    outputs = {"MarketBucket": "m", "ModelBucket": "n", "PredictionsBucket": "p"}
    local = Local("http://127.0.0.1:1", "simulated", (), None, {"stacks": {"s": {"outputs": outputs}}}, 1)
    (up / "up.json").write_text(json.dumps({**asdict(local), "pid": 1}))
    with (up / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "newest predictions: the stack that is up in build/up" in stockflow("predictions")[1]
        assert stockflow("predictions", "--from", "build/run")[2].startswith(
            "there are no predictions in build/run (r) yet"
        )
        s3.objects.clear()
        assert stockflow("runs")[2].endswith("in build/up: type `stockflow start --follow`\n")
    assert stockflow("predictions")[2].startswith("there are no predictions in build/run (r) yet: type `make run`")


def test_a_folder_that_holds_neither_is_told(stockflow: Stockflow, tmp_path: Path) -> None:
    status, _, err = stockflow("models", "--from", str(tmp_path))
    assert status == 2
    assert err.endswith("nothing is up there, and it is no folder that `stockflow run` left: name another one\n")


# --- predictions ------------------------------------------------------------------------------------------------------


def test_the_newest_predictions_are_shown_unless_a_period_is_asked_for(filled: Stockflow) -> None:
    newest = filled.rows("predictions")
    assert [(row["ticker"], row["horizon_min"]) for row in newest] == [(t, h) for t in TICKERS for h in (1, 5)]
    assert {row["as_of"] for row in newest} == {"2025-12-02T14:59:00+00:00"}
    assert [*newest[0]] == [column.name for column in contract.PREDICTIONS]
    _, out, _ = filled("predictions", "--ticker", "aapl,brk.b", "--horizon", "5")
    assert "newest predictions: the environment's buckets" in out
    assert [name in out for name in TICKERS] == [True, True, False]
    assert "2025-12-02 14:59" in out


def test_of_a_period_the_last_rows_are_shown(filled: Stockflow) -> None:
    assert len(filled.rows("predictions", "--start", "2025-12-01", "--end", "2025-12-01")) == 180
    assert len(filled.rows("predictions", "--start", "2025-12-01")) == 360
    assert len(filled.rows("predictions", "--run-id", "r")) == 180
    at = ("--start", "2025-12-01T14:58Z", "--end", "2025-12-01T15:00Z", "--ticker", "MSFT", "--horizon", "1")
    shown = filled.rows("predictions", *at, "--limit", "1")
    assert [row["as_of"] for row in shown] == ["2025-12-01T14:59:00+00:00"]
    status, out, err = filled("predictions", "--start", "2025-12-01")
    assert (status, err) == (0, "320 more are not shown: --limit 360 does\n")
    assert "predictions from 2025-12-01 on" in out
    assert out.count("2025-12-02 14:") == 40


@pytest.mark.parametrize("command", ["predictions", "accuracy"])
def test_where_nothing_matches_one_is_told_what_there_is(filled: Stockflow, command: str) -> None:
    status, out, err = filled(command, "--ticker", "TSLA")
    assert (status, out) == (0, "")
    assert err.endswith(
        "in the environment's buckets: the sessions are 2025-12-01 to 2025-12-02, the 3 tickers AAPL to MSFT,"
        " the horizons 1, 5 min\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predictions", "--end", "2025-12-01"), "--end needs a --start"),
        (("predictions", "--follow", "--end", "2025-12-01"), "--follow has no --end"),
        (("accuracy", "--start", "soon"), "start='soon' is no session such as"),
        (("accuracy", "--by", "month"), "'month' is not one of 'day', 'ticker', 'model'"),
        (("predictions", "--limit", "0"), "0 is not in the range x>=1"),
    ],
)
def test_what_cannot_be_asked_is_told(filled: Stockflow, arguments: tuple[str, ...], message: str) -> None:
    status, out, err = filled(*arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_what_comes_is_printed_until_there_is_enough(
    filled: Stockflow, s3: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    def come(seconds: float) -> None:
        store(bucket(s3), TUESDAY, predict(TUESDAY, {"AAPL": [1.0, 2.0], "B": [3.0, 4.0]}, first_minute=30), "s")

    monkeypatch.setattr("time.sleep", come)
    status, out, err = filled("predictions", "--follow", "--ticker", "AAPL", "--limit", "2", "--json")
    assert (status, err) == (0, "waiting for predictions in the environment's buckets: Ctrl-C ends\n")
    assert [json.loads(line)["last_price"] for line in out.splitlines()] == [1.0, 2.0]
    _, out, _ = filled("predictions", "--follow", "--start", "2025-12-02T15:00Z", "--limit", "4")
    assert out.splitlines()[0].split("  ")[0] == "ticker"
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["AAPL", "B", "AAPL", "B"]


def test_following_ends_with_ctrl_c(filled: Stockflow, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)
    status, _, err = filled("predictions", "--follow")
    assert (status, err.splitlines()[-1]) == (130, "stockflow: interrupted")


# --- accuracy, models, runs -------------------------------------------------------------------------------------------


def test_accuracy_is_of_the_last_session_by_horizon_and_what_else_is_asked_for(filled: Stockflow) -> None:
    found = filled.rows("accuracy")
    assert [(row["horizon_min"], row["sessions"], row["predictions"]) for row in found] == [(1, 1, 87), (5, 1, 75)]
    assert {row["skill"] for row in found} == {0.0}  # the price stays, it was forecast
    by = filled.rows("accuracy", "--start", "2025-12-01", "--by", "day", "--by", "ticker", "--horizon", "1")
    assert [(row["dt"], row["ticker"]) for row in by] == [(d, t) for d in ("2025-12-01", "2025-12-02") for t in TICKERS]
    _, out, _ = filled("accuracy", "--by", "model")
    assert "predictions and what happened of 2025-12-02" in out
    assert "below 0 the forecast is worse than none" in out
    assert "1 session can say little" in out


def test_models_are_listed(filled: Stockflow) -> None:
    (model,) = filled.rows("models")
    assert (model["model_id"], model["state"], model["skill"], model["runs"]) == ("m", "current", 0.01, ["r"])
    _, out, _ = filled("models", "--limit", "1")
    for told in ("m ", "current", "2026-01-01 10:30", "+0.0100", "+0.0200, not significant", "gate.min_skill=0"):
        assert told in out


def test_runs_are_listed(filled: Stockflow) -> None:
    (run,) = filled.rows("runs")
    assert (run["run_id"], run["predictions"], run["promoted"]) == ("r", 360, True)
    _, out, _ = filled("runs")
    for told in ("3 x 2", "100.0%", "ingest 2, serve 3", "promoted", "360"):
        assert told in out

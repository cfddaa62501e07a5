"""The command line: help, one-line errors with their exit status, and a start without heavy imports."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from botocore.exceptions import EndpointConnectionError
from click.testing import CliRunner

from app import __version__, contract
from app.cli import cli, main
from app.ingest import collect
from app.ingest.plan import make_plan, read_plan
from app.sessions import sessions_between
from app.storage import Bucket
from app.tables import put_table
from tests.fakes import FakeS3, make_bars, make_sessions, market_bars
from tests.yahoo import FakeYahoo, walk

HEAVY = {"boto3", "exchange_calendars", "keras", "numpy", "onnxruntime", "pandas", "pyarrow", "pyspark", "tensorflow"}
PLACE = {
    contract.ENV_MARKET_BUCKET: "market",
    contract.ENV_MODEL_BUCKET: "models",
    contract.ENV_PREDICTIONS_BUCKET: "predictions",
    contract.ENV_RUN_ID: "r",
}
SESSIONS = make_sessions(*[20] * 4)
SMALL = tuple(f"--set=dataset.{size}" for size in ("window_min=5", "horizons_min=[2]", "validation_days=1"))


class Ended(NamedTuple):
    """How a command ended."""

    status: Any
    out: str
    err: str


Stockflow = Callable[..., Ended]


@pytest.fixture
def stockflow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], s3: FakeS3) -> Iterator[Stockflow]:
    """Runs the entry point in this process, with a place in the environment and S3 in memory."""
    for name in (contract.ENV_SETTINGS, contract.ENV_NOW, contract.ENV_PROGRESS, contract.ENV_ARRAY_INDEX):
        monkeypatch.delenv(name, raising=False)
    for name, value in PLACE.items():
        monkeypatch.setenv(name, value)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["stockflow", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return Ended(caught.value.code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("command", ["", *cli.commands])
def test_every_command_has_help(command: str) -> None:
    found = CliRunner().invoke(cli, [*command.split(), "--help"])
    assert found.exit_code == 0
    assert found.output.startswith("Usage: ")
    assert {"ingest", "dataset", "train", "promote", "serve", "feed", "run", "settings"} <= set(cli.commands)


@pytest.mark.parametrize("arguments", [["--help"], ["settings"], ["train", "--help"]])
def test_help_and_settings_import_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys; from app.cli import cli; cli({arguments}, standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "app.cli" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("module", ["app.dataset.run", "app.serving.score_bucket", "app.serving.feed"])
def test_what_works_on_stored_bars_imports_no_client_of_yahoo(module: str) -> None:
    code = f"import sys; import {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert module in done.stdout.split()
    assert not {"yfinance", "curl_cffi"} & set(done.stdout.split())


def test_the_version_is_told(stockflow: Stockflow) -> None:
    assert stockflow("--version") == (0, f"stockflow, version {__version__}\n", "")


def test_settings_are_listed(stockflow: Stockflow) -> None:
    ended = stockflow("settings")
    assert (ended.status, ended.err) == (0, "")
    assert "training.epochs=4  passes over the training windows" in ended.out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["train", "--set", "training.epochs=0"], 2, "stockflow: setting training.epochs=0: input should be greater"),
        (["dataset", "--set", "dataset.windows=1"], 2, "stockflow: unknown setting dataset.windows: allowed are "),
        (["dataset", "--run-id", "a/b"], 2, "stockflow: STOCKFLOW_RUN_ID='a/b': use up to 64 letters"),
        (["dataset"], 3, "stockflow: s3://market/runs/r/plan.json does not exist: run the phase that writes it first"),
        (["ingest", "--tickers", "A B/C"], 4, "stockflow: universe file A B/C does not exist"),
    ],
)
def test_what_a_person_can_mend_is_one_line_and_a_status(
    stockflow: Stockflow, arguments: list[str], status: int, message: str
) -> None:
    ended = stockflow(*arguments)
    assert (ended.status, ended.out) == (status, "")
    assert ended.err.startswith(message)
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("command", ["ingest", "run", "up"])
def test_the_sp500_is_fetched_from_where_the_environment_says(
    stockflow: Stockflow, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv(contract.ENV_SP500_URL, "http://example.com/constituents.csv")
    ended = stockflow(command, "--tickers", "sp500")
    assert ended.status == 2
    assert ended.err.startswith("stockflow: STOCKFLOW_SP500_URL='http://example.com/constituents.csv' is not https")


def test_missing_variables_are_named(stockflow: Stockflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(contract.ENV_MODEL_BUCKET)
    ended = stockflow("train")
    assert ended.status == 2
    assert ended.err.startswith("stockflow: set STOCKFLOW_MODEL_BUCKET (")


def test_a_wrong_clock_is_told(stockflow: Stockflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(contract.ENV_NOW, "2026-03-24")
    assert stockflow("dataset")[0::2] == (2, "stockflow: now='2026-03-24' names no time zone: add +00:00 for UTC\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ingest"], "name the universe: --tickers"),
        (["predict"], "No such command 'predict'"),
        (["feed", "--speed", "fast"], "'fast' is not a valid float"),
        (["ingest", "--shard", "1"], "the plan of run r has shards 0 to 0, not 1"),
        (["ingest", "--only", "plan", "--shard", "0"], "--only plan and --shard 0 are two steps: name one"),
        (["ingest", "--only", "compact", "--shard", "0"], "--only compact and --shard 0 are two steps: name one"),
    ],
)
def test_wrong_usage_has_status_2(stockflow: Stockflow, arguments: list[str], message: str) -> None:
    store_plan()
    ended = stockflow(*arguments)
    assert ended.status == 2
    assert message in ended.err


def test_a_child_of_a_batch_array_takes_the_shard_of_its_index(
    stockflow: Stockflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_plan()
    monkeypatch.setenv(contract.ENV_ARRAY_INDEX, "1")
    ended = stockflow("ingest")
    assert (ended.status, ended.err) == (2, "stockflow: the plan of run r has shards 0 to 0, not 1\n")


def test_an_endpoint_that_is_down_is_one_line(stockflow: Stockflow, s3: FakeS3) -> None:
    s3.error = EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
    ended = stockflow("dataset")
    assert ended.status == 3
    assert "does not answer (EndpointConnectionError): start it or check AWS_ENDPOINT_URL" in ended.err


def test_an_interrupted_command_says_so(stockflow: Stockflow, s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**call: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(s3, "get_object", interrupt)
    ended = stockflow("dataset")
    assert (ended.status, ended.err.strip()) == (130, "stockflow: interrupted")


def test_a_bug_shows_its_traceback(stockflow: Stockflow, s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.error = ZeroDivisionError("a bug")
    monkeypatch.setattr(sys, "argv", ["stockflow", "dataset"])
    with pytest.raises(ZeroDivisionError):
        main()


# --- phases that need nothing but S3 --------------------------------------------------------------


def store_plan() -> Bucket:
    market = Bucket("market")
    plan = make_plan("r", ["A", "B"], SESSIONS, shards=1, request_days=7)
    market.put_json(contract.plan_key("r"), plan.to_json())
    return market


@pytest.fixture
def yahoo(monkeypatch: pytest.MonkeyPatch) -> FakeYahoo:
    """Knows A and B on two days of which the second is over for two hours; the run's clock stands there."""
    now = datetime(2025, 12, 2, 23, tzinfo=UTC)
    sessions = sessions_between(date(2025, 12, 1), date(2025, 12, 2))
    fake = FakeYahoo({ticker: walk(ticker, *sessions) for ticker in "AB"}, now)
    monkeypatch.setattr(collect, "_CLIENTS", {"direct": fake.client})
    monkeypatch.setenv(contract.ENV_NOW, now.isoformat())
    return fake


INGEST = ("ingest", "--set", "ingest.days=2", "--set", "ingest.backoff_s=0", "--set", "ingest.shards=2")


def test_the_ingest_leaves_one_object_a_day_a_coverage_and_a_result(stockflow: Stockflow, yahoo: FakeYahoo) -> None:
    ended = stockflow(*INGEST, "--tickers", "A,B")
    assert (ended.status, ended.err) == (0, "")
    assert "ingest: 4 parts of days merged" in ended.out.splitlines()
    assert ended.out.splitlines()[-1].startswith("ingest: 1,560 rows in ")
    market = Bucket("market")
    days = [date(2025, 12, 1), date(2025, 12, 2)]
    keys = market.keys(contract.BARS_PREFIX)
    assert [key.rpartition("/")[0] for key in keys] == [f"bars/dt={day.isoformat()}" for day in days]
    assert all(contract.is_compact(contract.part_of(key)) for key in keys)
    result = market.get_json(contract.result_key("r", "ingest"))
    assert result["statuses"] == {"complete": 2, "partial": 0, "delisted": 0, "failed": 0}
    assert (result["rows"], result["held"], result["requests"]) == (1560, 0, 2)


def test_a_second_ingest_asks_yahoo_for_nothing(stockflow: Stockflow, yahoo: FakeYahoo) -> None:
    assert stockflow(*INGEST, "--tickers", "A,B").status == 0
    yahoo.asked.clear()
    ended = stockflow(*INGEST, "--tickers", "A,B", "--run-id", "r2")
    assert (ended.status, ended.err) == (0, "")
    assert not yahoo.asked
    result = Bucket("market").get_json(contract.result_key("r2", "ingest"))
    assert (result["rows"], result["held"], result["requests"]) == (1560, 1560, 0)


def test_a_ticker_that_yahoo_does_not_know_fails_the_ingest_after_all_is_stored(
    stockflow: Stockflow, yahoo: FakeYahoo
) -> None:
    ended = stockflow(*INGEST, "--tickers", "A,NOPE")
    assert (ended.status, ended.err) == (
        4,
        "stockflow: Yahoo knows no ticker 'NOPE': correct the universe, or set ingest.on_delisted=skip\n",
    )
    assert "ingest: NOPE delisted: No data found, symbol may be delisted" in ended.out.splitlines()
    market = Bucket("market")
    assert market.get_json(contract.coverage_key("r"))["statuses"]["delisted"] == 1
    assert not market.exists(contract.result_key("r", "ingest"))


def test_a_ticker_that_yahoo_does_not_know_is_skipped_when_told_so(stockflow: Stockflow, yahoo: FakeYahoo) -> None:
    ended = stockflow(*INGEST, "--tickers", "A,NOPE", "--set", "ingest.on_delisted=skip")
    assert (ended.status, ended.err) == (0, "")
    result = Bucket("market").get_json(contract.result_key("r", "ingest"))
    assert (result["rows"], result["statuses"]["delisted"]) == (780, 1)


def test_each_step_of_the_ingest_can_be_taken_alone(stockflow: Stockflow, yahoo: FakeYahoo) -> None:
    market = Bucket("market")
    assert stockflow(*INGEST, "--tickers", "A,B", "--only", "plan").out == "2 shards -> s3://market/runs/r/plan.json\n"
    for shard in ("0", "1"):
        assert stockflow(*INGEST, "--shard", shard).status == 0
    assert len(market.keys(contract.BARS_PREFIX)) == 4
    ended = stockflow(*INGEST, "--only", "compact")
    assert (ended.status, ended.out.splitlines()[-1], ended.err) == (0, "ingest: 4 parts of days merged", "")
    assert len(market.keys(contract.BARS_PREFIX)) == 2
    assert not market.exists(contract.coverage_key("r"))
    assert stockflow(*INGEST, "--only", "coverage").status == 0
    assert market.get_json(contract.result_key("r", "ingest"))["rows"] == 1560


def test_a_plan_made_alone_shares_the_requests_among_all_shards(stockflow: Stockflow, yahoo: FakeYahoo) -> None:
    one_process = (*INGEST, "--tickers", "A,B", "--set", "ingest.processes=1")
    assert stockflow(*one_process, "--only", "plan").status == 0
    plan = read_plan("r", Bucket("market"))
    assert plan.workers == len(plan.shards) == 2
    assert stockflow(*one_process, "--run-id", "r2").status == 0
    assert read_plan("r2", Bucket("market")).workers == 1


def test_a_step_that_needs_a_plan_says_so(stockflow: Stockflow) -> None:
    for step in ("compact", "coverage"):
        ended = stockflow("ingest", "--only", step)
        assert ended.status == 3
        assert ended.err.startswith("stockflow: s3://market/runs/r/plan.json does not exist")


def test_an_s3_that_goes_down_during_the_ingest_is_one_line(
    stockflow: Stockflow, yahoo: FakeYahoo, s3: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = s3.put_object

    def refuse_the_journal(**call: Any) -> Any:
        if "/journal/" in call["Key"]:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
        return put(**call)

    monkeypatch.setattr(s3, "put_object", refuse_the_journal)
    ended = stockflow(*INGEST, "--tickers", "A,B", "--set", "ingest.journal_s=0")
    assert ended.status == 3
    assert "does not answer (EndpointConnectionError): start it or check AWS_ENDPOINT_URL" in ended.err
    assert ended.err.count("\n") == 1


def test_the_feed_replays_the_last_session(stockflow: Stockflow) -> None:
    market = store_plan()
    bars = pa.concat_tables([make_bars("A", SESSIONS[-1]), make_bars("B", SESSIONS[-1], [7])])
    put_table(market, contract.bars_key(SESSIONS[-1].day, "s"), bars)
    ended = stockflow("feed", "--speed", "1000000")
    assert (ended.status, ended.out.splitlines()[-1]) == (0, "feed: 21 ticks in 20 objects")
    assert market.get_json(contract.feed_end_key("r"))["ticks"] == 21


def test_a_live_feed_that_starts_again_after_the_close_brings_what_is_missing(
    stockflow: Stockflow, yahoo: FakeYahoo
) -> None:
    market, session = store_plan(), sessions_between(date(2025, 12, 2), date(2025, 12, 2))[0]
    market.put_json(contract.live_session_key("r"), {"day": session.day})
    yahoo.bars["B"] = yahoo.bars["B"].between(0, session.open_ts + 60)  # not a bar of this session but the first
    yahoo.now = datetime(2026, 1, 5, tzinfo=UTC)
    ended = stockflow("feed", "--live")
    assert (ended.status, ended.out.splitlines()[-1]) == (0, "feed: 391 ticks in 1 objects")
    end = market.get_json(contract.feed_end_key("r"))
    assert (end["day"], end["missed"]["tickers"]) == ("2025-12-02", [])


def test_a_live_feed_says_what_it_misses_in_a_line(stockflow: Stockflow, yahoo: FakeYahoo) -> None:
    market, session = store_plan(), sessions_between(date(2025, 12, 2), date(2025, 12, 2))[0]
    market.put_json(contract.live_session_key("r"), {"day": session.day})
    del yahoo.bars["B"]
    ended = stockflow("feed", "--set", "serving.feed=live")
    assert ended.status == 0
    assert ended.err == ("feed: 1 of 2 tickers are not answered (B), first: No data found, symbol may be delisted\n")


def test_the_dataset_phase_leaves_splits_spec_and_result(stockflow: Stockflow, s3: FakeS3) -> None:
    market = store_plan()
    for session in SESSIONS:
        put_table(market, contract.bars_key(session.day, "s"), market_bars(["A", "B"], [session]))
    days = [session.day.isoformat() for session in SESSIONS]
    market.put_json(contract.coverage_key("r"), {"days": days})
    s3.puts.clear()
    ended = stockflow("dataset", *SMALL)
    assert (ended.status, ended.err) == (0, "")
    # Two tickers: 20 - 7 minutes to train on and to validate on, 40 to test on.
    assert ended.out.splitlines()[-1].startswith("dataset: 132 rows in ")
    splits = [contract.dataset_key("r", name) for name in ("train", "validation", "test")]
    last = [contract.dataset_spec_key("r"), contract.LATEST_DATASET_KEY, contract.result_key("r", "dataset")]
    assert s3.puts == [*splits, *last]
    assert Bucket("models").get_json(contract.LATEST_DATASET_KEY) == {"run_id": "r"}
    result = json.loads(s3.objects[contract.result_key("r", "dataset")].body)
    assert (result["phase"], result["rows"], result["where"]) == ("dataset", 132, "s3://models/datasets/r/spec.json")
    assert result["days"]["test"] == days[2:]


def test_days_that_the_run_does_not_hold_are_left_out_of_its_dataset(stockflow: Stockflow) -> None:
    market = store_plan()
    for session in SESSIONS[1:]:
        put_table(market, contract.bars_key(session.day, "s"), market_bars(["A"], [session]))
    days = [session.day.isoformat() for session in SESSIONS[1:]]
    market.put_json(contract.coverage_key("r"), {"days": days})
    assert stockflow("dataset", *SMALL, "--set", "dataset.test_days=1").status == 0
    assert market.get_json(contract.result_key("r", "dataset"))["days"]["train"] == days[:1]


def test_a_run_that_ingested_nothing_takes_the_sessions_whose_bars_are_stored(stockflow: Stockflow) -> None:
    market = store_plan()
    put_table(market, contract.bars_key(SESSIONS[0].day, "s"), market_bars(["OTHER"], SESSIONS[:1]))
    for session in SESSIONS[1:]:
        put_table(market, contract.bars_key(session.day, "s"), market_bars(["A"], [session]))
    assert stockflow("dataset", *SMALL, "--set", "dataset.test_days=1").status == 0
    days = [session.day.isoformat() for session in SESSIONS[1:]]
    found = market.get_json(contract.result_key("r", "dataset"))["days"]
    assert [*found["train"], *found["validation"], *found["test"]] == days


@pytest.mark.parametrize(("min_skill", "promoted"), [("0.1", True), ("0.3", False)])
def test_the_promote_phase_says_whether_and_why_and_never_fails(
    stockflow: Stockflow, min_skill: str, promoted: bool
) -> None:
    models = Bucket("models")
    for name in contract.MODEL_FILES:
        models.put(contract.model_key("m", name), b"")
    metrics = {"validation": {"skill": 0.25, "windows": 1560}, "current": None}
    models.put_json(contract.model_key("m", contract.MODEL_METRICS), metrics)
    models.put_json(contract.candidate_key("r"), {"model_id": "m", "sha256": {}})
    ended = stockflow("promote", "--set", f"gate.min_skill={min_skill}")
    assert (ended.status, ended.err) == (0, "")
    why = f"its skill over persistence, +0.25 on 1,560 validation windows, is {'not ' if promoted else ''}below"
    said = f"model m is {'' if promoted else 'not '}promoted: {why} gate.min_skill={min_skill}; no model serves yet"
    assert ended.out.splitlines()[0] == said
    assert ended.out.splitlines()[1].startswith("promote: 1,560 rows in ")
    result = Bucket("market").get_json(contract.result_key("r", "promote"))
    assert (result["promote"], result["model_id"]) == (promoted, "m")
    assert models.exists(contract.CURRENT_MODEL_KEY) is promoted

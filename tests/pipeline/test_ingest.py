"""Ingest with real processes, real yfinance and a local Yahoo that is not always kind."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from app import contract
from app.ingest.bars import bars_of, read_bars
from app.ingest.plan import read_plan
from embedded.market.bars import Market
from embedded.market.simulated import SimulatedMarket, simulate
from embedded.yahoo.faults import Faults
from embedded.yahoo.running import running_server
from tests.pipeline.conftest import TICKERS, World

MARKET = simulate(SimulatedMarket(tickers=4, sessions=5))


def test_every_bar_of_the_market_is_stored_once(dataset: World) -> None:
    plan = read_plan(dataset.run_id, dataset.market)
    stored = read_bars(dataset.market, plan.sessions, plan.tickers).to_pandas()
    assert dict(stored.groupby("ticker").size()) == {t: len(MARKET.bars[t]) for t in TICKERS}
    for ticker in TICKERS:
        mine = stored[stored["ticker"] == ticker]
        assert (mine["close"].to_numpy() == MARKET.bars[ticker].close).all()
        assert (mine["volume"].to_numpy() == MARKET.bars[ticker].volume).all()


def test_the_last_session_and_the_half_day_are_whole(dataset: World) -> None:
    coverage = dataset.market.get_json(contract.coverage_key(dataset.run_id))
    assert coverage["days"][-1] == MARKET.days[-1].isoformat()
    held = {t["ticker"]: sum(t["missing"].values()) for t in coverage["tickers"]}
    calendar_minutes = sum(session.minutes for session in read_plan(dataset.run_id, dataset.market).sessions)
    assert held == {t: calendar_minutes - len(MARKET.bars[t]) for t in TICKERS}


def test_a_ticker_that_yahoo_does_not_know_is_named_and_accounted_for(world: World) -> None:
    run = world.with_run("delisted")
    done = run.stockflow("ingest", "--tickers", "SIM001,NOPE", "--set", "ingest.days=7")
    assert done.returncode == 4
    assert done.stderr.strip() == (
        "stockflow: Yahoo knows no ticker 'NOPE': correct the universe, or set ingest.on_delisted=skip"
    )
    assert not run.market.exists(contract.result_key("delisted", "ingest"))
    statuses = {t["ticker"]: t["status"] for t in run.market.get_json(contract.coverage_key("delisted"))["tickers"]}
    assert statuses["NOPE"] == "delisted"
    assert statuses["SIM001"] in {"complete", "partial"}


def test_a_storm_of_429_ends_in_one_line_and_stores_no_bars(world: World) -> None:
    with running_server(MARKET, faults=Faults(storm=True)) as yahoo:
        run = world.with_empty_market("storm", **{contract.ENV_YAHOO_URL: yahoo.url})
        before = run.market.keys(contract.BARS_PREFIX)
        done = run.stockflow(
            "ingest", "--tickers", "SIM001,SIM002,SIM003", "--set", "ingest.days=7", "--set", "ingest.patience_s=2"
        )
    assert done.returncode == 5
    assert done.stderr.strip() == (
        "stockflow: 3 of 3 tickers have no complete answer, first SIM001: no answer from Yahoo in more than 2 s: 429"
        " Too Many Requests (wait and run again, or lower ingest.min_coverage)"
    )
    assert run.market.keys(contract.BARS_PREFIX) == before


def test_a_shard_that_yahoo_refuses_fails_until_its_last_attempt_and_is_judged_by_its_coverage(world: World) -> None:
    run = world.with_empty_market("attempts", **{contract.ENV_SHARD_ATTEMPTS: "3"})
    shard = ("ingest", "--shard", "0", "--set", "ingest.days=7", "--set", "ingest.patience_s=2")
    run.must("ingest", "--tickers", "SIM001,SIM002", "--only", "plan", "--set", "ingest.days=7",
             "--set", "ingest.shards=1")  # fmt: skip
    (name,) = (part.name for part in read_plan("attempts", run.market).shards)
    with running_server(MARKET, faults=Faults(storm=True)) as yahoo:
        stormy = {contract.ENV_YAHOO_URL: yahoo.url}
        first = run.with_run("attempts", **stormy, **{contract.ENV_JOB_ATTEMPT: "1"}).stockflow(*shard)
        last = run.with_run("attempts", **stormy, **{contract.ENV_JOB_ATTEMPT: "3"}).stockflow(*shard)
    assert (first.returncode, last.returncode, last.stderr) == (5, 0, "")
    assert first.stderr.strip() == (
        "stockflow: 2 of 2 tickers of shard 0 have no complete answer, first SIM001: no answer from Yahoo in more than"
        " 2 s: 429 Too Many Requests (try the shard again)"
    )
    tickers = run.market.get_json(contract.manifest_key("attempts", name))["tickers"]
    assert [ticker["status"] for ticker in tickers] == ["failed", "failed"]
    assert run.stockflow("ingest", "--only", "coverage").returncode == 5
    run.with_run("attempts", **{contract.ENV_JOB_ATTEMPT: "2"}).must(*shard)
    run.must("ingest", "--only", "coverage")


@pytest.mark.parametrize("client", ["direct", "yfinance"])
def test_faults_of_every_kind_change_no_bar_and_every_retry_is_counted(world: World, client: str) -> None:
    with running_server(MARKET, faults=Faults(share=0.3, seed=3, retry_after_s=0)) as yahoo:
        run = world.with_empty_market(f"faulty-{client}", **{contract.ENV_YAHOO_URL: yahoo.url})
        run.must("ingest", "--tickers", ",".join(TICKERS), "--set", "ingest.days=7", "--set", "ingest.backoff_s=0.01",
                 "--set", "ingest.request_days=1", "--set", "ingest.attempts=10", "--set", "ingest.timeout_s=1",
                 "--set", f"ingest.client={client}")  # fmt: skip
        stats = yahoo.stats()
    assert len(stats["faults"]) >= 5
    assert_whole_market(run)
    result, plan = run.result("ingest"), read_plan(run.run_id, run.market)
    repeated_by_curl = stats["requests"]["chart"] - result["requests"]
    assert repeated_by_curl <= stats["faults"]["drop"]
    if client == "direct":
        assert repeated_by_curl >= 0
        assert result["retries"] + result["verified"] == result["requests"] - len(plan.spans) * len(TICKERS)


def assert_whole_market(run: World, market: Market = MARKET) -> None:
    """Every bar of the market is stored once, to the bit."""
    plan = read_plan(run.run_id, run.market)
    stored = bars_of(read_bars(run.market, plan.sessions, plan.tickers))
    assert all(stored[ticker].same_as(bars) for ticker, bars in market.bars.items())


def test_an_s3_that_does_not_answer_is_one_line(world: World) -> None:
    gone = world.with_run("gone", **{contract.ENV_AWS_ENDPOINT_URL: "http://127.0.0.1:9"})
    for phase in (["ingest", "--tickers", "SIM001", "--set", "ingest.days=7"], ["dataset"]):
        done = gone.stockflow(*phase)
        assert done.returncode == 3
        assert done.stderr.strip() == (
            "stockflow: S3 at http://127.0.0.1:9 does not answer (EndpointConnectionError): start it or check"
            " AWS_ENDPOINT_URL"
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_ingest_takes_its_workers_with_it(world: World, number: signal.Signals) -> None:
    with running_server(MARKET, faults=Faults(latency_ms=5000)) as yahoo:
        run = world.with_empty_market("interrupted", **{contract.ENV_YAHOO_URL: yahoo.url})
        process = run.popen("ingest", "--tickers", ",".join(TICKERS), "--set", "ingest.days=7",
                            "--set", "ingest.shards=2", "--set", "ingest.processes=2")  # fmt: skip
        family: list[psutil.Process] = []
        while len(family) < 3:  # two workers and multiprocessing's own
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
            family = psutil.Process(process.pid).children(recursive=True)
        time.sleep(2)
        process.send_signal(number)
        process.communicate(timeout=20)
        assert process.returncode == 128 + number
        _, alive = psutil.wait_procs(family, timeout=5)
        assert not alive

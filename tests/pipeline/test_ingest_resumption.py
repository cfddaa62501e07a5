"""Ingest that is killed, repeated and moved on in time: nothing is fetched twice, nothing is lost or doubled."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from app import contract
from app.ingest.bars import bars_of, read_bars
from app.ingest.journal import Journal
from app.ingest.plan import read_plan
from app.sessions import Session, sessions_between
from embedded.market.bars import Market
from embedded.market.simulated import SimulatedMarket, simulate
from embedded.yahoo.faults import Faults
from embedded.yahoo.running import RunningServer, running_server
from tests.pipeline.conftest import World

MARKET = simulate(SimulatedMarket(tickers=12, sessions=5, halt_share=0.0))
LONG = simulate(SimulatedMarket(tickers=2, sessions=40, halt_share=0.0))
PLAN = ("--set", "ingest.days=7", "--set", "ingest.request_days=1")


@contextmanager
def standing_at(
    world: World, market: Market, now: datetime, latency_ms: float = 0.0
) -> Iterator[tuple[World, RunningServer]]:
    """A run whose clock, and whose Yahoo, stand at an instant."""
    with running_server(market, now=now, faults=Faults(latency_ms=latency_ms)) as yahoo:
        yield (
            world.with_run(world.run_id, **{contract.ENV_YAHOO_URL: yahoo.url, contract.ENV_NOW: now.isoformat()}),
            yahoo,
        )


def at(ts: int) -> datetime:
    return datetime.fromtimestamp(ts, UTC)


def assert_stored(run: World, market: Market, sessions: Sequence[Session]) -> None:
    """Each bar of these sessions is stored once, to the bit."""
    stored = bars_of(read_bars(run.market, sessions, market.tickers))
    for ticker, bars in market.bars.items():
        assert stored[ticker].same_as(bars.between(sessions[0].open_ts, sessions[-1].close_ts))


def test_a_killed_shard_fetches_only_what_is_missing(world: World) -> None:
    run = world.with_empty_market("killed")
    now = MARKET.end + timedelta(hours=2)
    tickers = ",".join(MARKET.tickers)
    with standing_at(run, MARKET, now, latency_ms=150) as (run, yahoo):
        run.must("ingest", "--tickers", tickers, "--only", "plan", *PLAN)
        plan = read_plan(run.run_id, run.market)
        slow = ("--set", "ingest.in_flight=4", "--set", "ingest.journal_s=0")
        worker = run.popen("ingest", "--shard", "0", *slow)
        journal = contract.journal_prefix(run.run_id, plan.shards[0].name)
        while len(run.market.keys(journal)) < 4:
            assert worker.poll() is None, worker.communicate()
            time.sleep(0.05)
        worker.kill()
        worker.communicate()
        assert not run.market.keys(contract.BARS_PREFIX)
        time.sleep(1)  # S3 may still be storing what it sent last
        finished = len(Journal(run.market, run.run_id, plan.shards[0].name).read())  # an entry may hold several tickers
        before = yahoo.stats()["requests"]["chart"]
        run.must("ingest", "--shard", "0")
        again = yahoo.stats()["requests"]["chart"] - before
        assert again == len(plan.spans) * (len(MARKET.tickers) - finished)
        assert not run.market.keys(journal)
        run.must("ingest", "--only", "coverage")
    assert_stored(run, MARKET, plan.sessions)
    assert run.result("ingest")["statuses"] == {"complete": 12, "partial": 0, "delisted": 0, "failed": 0}


def test_runs_over_overlapping_ranges_give_one_copy_of_each_bar(world: World) -> None:
    run = world.with_empty_market("overlap-1")
    sessions = sessions_between(MARKET.days[0], MARKET.days[-1])
    midday = at(sessions[3].open_ts + 120 * 60)
    with standing_at(run, MARKET, midday) as (first, _):
        first.must("ingest", "--tickers", "SIM001,SIM002,SIM003", *PLAN)
        part_of_day = first.market.get_json(contract.coverage_key("overlap-1"))["tickers"][0]
        assert part_of_day["days"] == {sessions[3].day.isoformat(): "partial"}
        assert part_of_day["missing"][sessions[3].day.isoformat()] >= 270
    with standing_at(run.with_run("overlap-2"), MARKET, MARKET.end + timedelta(hours=2)) as (second, yahoo):
        second.must("ingest", "--tickers", ",".join(MARKET.tickers), "--set", "ingest.shards=3", *PLAN)
        # Three days of three tickers are settled, by another run of another number of shards.
        assert yahoo.stats()["requests"]["chart"] == 5 * 12 - 3 * 3
    with standing_at(run.with_run("overlap-3"), MARKET, MARKET.end + timedelta(hours=3)) as (third, yahoo):
        third.must("ingest", "--tickers", ",".join(MARKET.tickers), *PLAN)
        assert yahoo.stats()["requests"].get("chart", 0) == 0
        third.must("ingest", "--tickers", "SIM001", "--set", "ingest.refetch=true", *PLAN)
        assert yahoo.stats()["requests"]["chart"] == 5
    assert_stored(third, MARKET, sessions)
    for session in sessions:
        assert len(run.market.keys(contract.bars_day_prefix(session.day))) == 1
        assert len(run.market.keys(contract.answers_day_prefix(session.day))) == 1


def test_history_grows_beyond_what_yahoo_keeps(world: World) -> None:
    run = world.with_empty_market("history-0")
    sessions = sessions_between(LONG.days[0], LONG.days[-1])
    for number, last in enumerate((18, 29, 39)):
        with standing_at(run.with_run(f"history-{number}"), LONG, at(sessions[last].close_ts + 3600)) as (later, _):
            later.must("ingest", "--tickers", ",".join(LONG.tickers))
    assert (sessions[-1].day - sessions[0].day).days > 50
    assert_stored(later, LONG, sessions)
    assert len(run.market.keys(contract.BARS_PREFIX)) == len(sessions)


@pytest.mark.chaos
def test_an_ingest_that_is_killed_again_and_again_ends_with_every_bar(world: World) -> None:
    now = MARKET.end + timedelta(hours=2)
    for trial in range(10):
        with standing_at(world.with_empty_market(f"chaos-{trial}"), MARKET, now, latency_ms=60) as (run, _):
            run.must(
                "ingest", "--tickers", ",".join(MARKET.tickers), "--only", "plan", "--set", "ingest.shards=2", *PLAN
            )
            for kill in range(3):
                steps = (("--shard", "0"), ("--shard", "1"), ("--only", "compact"))
                worker = run.popen("ingest", *steps[kill], "--set", "ingest.in_flight=4", "--set", "ingest.journal_s=0")
                time.sleep(0.8 + 0.17 * trial)
                worker.kill()
                worker.communicate()
            for step in (("--shard", "0"), ("--shard", "1"), ("--only", "compact"), ("--only", "coverage")):
                run.must("ingest", *step)
            assert_stored(run, MARKET, read_plan(run.run_id, run.market).sessions)

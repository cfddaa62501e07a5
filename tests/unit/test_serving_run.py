"""The serve phase's progress line: how many ticks are to come."""

from __future__ import annotations

from app import contract
from app.ingest.plan import make_plan
from app.serving.run import _expected
from tests.fakes import bucket, make_sessions

PLAN = make_plan("r", ["A", "B", "C"], make_sessions(390, 210), shards=1, request_days=7)


def test_it_expects_the_bars_of_the_last_session_that_the_run_got() -> None:
    market = bucket()
    last = PLAN.sessions[-1].day.isoformat()
    tickers = [{"rows": 600, "missing": {}}, {"rows": 590, "missing": {last: 10}}, {"rows": 0, "missing": {}}]
    market.put_json(contract.coverage_key("r"), {"tickers": tickers})
    assert _expected(PLAN, PLAN.sessions[-1], market) == 210 + 200


def test_without_an_ingest_it_expects_every_minute_of_every_ticker() -> None:
    assert _expected(PLAN, PLAN.sessions[-1], bucket()) == 3 * 210

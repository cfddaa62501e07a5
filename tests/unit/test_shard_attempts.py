"""The attempts at a shard: all but the last fail with its failures, the last leaves the judgement to the coverage."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app import contract
from app.errors import SettingsError, YahooError
from app.ingest import collect
from app.ingest.chart import PassingFailure
from app.ingest.plan import Plan, make_plan
from app.ingest.run import is_last_attempt, run_one_shard, run_shards
from app.progress import silent
from app.sessions import utc
from app.settings import IngestSettings
from app.storage import Bucket
from tests.fakes import FakeS3, bucket, make_sessions
from tests.yahoo import FakeYahoo, walk

SESSIONS = make_sessions(60, 40)
NEXT_DAY = utc(SESSIONS[-1].close_ts) + timedelta(days=1)
SETTINGS = IngestSettings(rate_per_s=0, backoff_s=0, attempts=2)


@pytest.mark.parametrize(
    ("attempt", "attempts", "last"),
    [("1", "3", False), ("2", "3", False), ("3", "3", True), ("4", "3", True), ("1", "1", True), ("10", "9", True)],
)
def test_batch_s_last_attempt_is_the_last(attempt: str, attempts: str, last: bool) -> None:
    environ = {contract.ENV_JOB_ATTEMPT: attempt, contract.ENV_SHARD_ATTEMPTS: attempts}
    assert is_last_attempt(environ) is last


@pytest.mark.parametrize("environ", [{}, {contract.ENV_JOB_ATTEMPT: "1"}, {contract.ENV_SHARD_ATTEMPTS: "3"}])
def test_where_nobody_tries_again_the_only_attempt_is_the_last(environ: dict[str, str]) -> None:
    assert is_last_attempt(environ)


def test_a_number_that_is_none_is_told() -> None:
    environ = {contract.ENV_JOB_ATTEMPT: "1", contract.ENV_SHARD_ATTEMPTS: "many"}
    with pytest.raises(SettingsError, match="AWS_BATCH_JOB_ATTEMPT='1' and STOCKFLOW_SHARD_ATTEMPTS='many' must be"):
        is_last_attempt(environ)


@pytest.fixture
def yahoo(monkeypatch: pytest.MonkeyPatch) -> FakeYahoo:
    """Knows A, B and C; B's connection ends, again and again."""
    fake = FakeYahoo({ticker: walk(ticker, *SESSIONS) for ticker in "ABC"}, NEXT_DAY)
    fake.errors["B"] = [PassingFailure("the connection ended")] * 4
    monkeypatch.setattr(collect, "_CLIENTS", {"direct": fake.client})
    return fake


def make(shards: int = 1, at_once: int = 1) -> Plan:
    return make_plan("r", list("ABCX"), SESSIONS, shards=shards, request_days=7, at_once=at_once)


def attempt(yahoo: FakeYahoo, market: Bucket, *, last: bool, said: list[str] | None = None) -> None:
    said = [] if said is None else said
    run_one_shard(make(), 0, market, SETTINGS, None, yahoo.clock, silent, said.append, last_attempt=last)


def statuses(market: Bucket, plan: Plan) -> dict[str, str]:
    names = [shard.name for shard in plan.shards]
    manifests = [market.get_json(contract.manifest_key("r", name)) for name in names]
    return {line["ticker"]: line["status"] for manifest in manifests for line in manifest["tickers"]}


def test_an_attempt_with_a_ticker_that_failed_fails_and_the_next_one_asks_for_it_alone(yahoo: FakeYahoo) -> None:
    market = bucket()
    with pytest.raises(YahooError) as caught:
        attempt(yahoo, market, last=False)
    assert str(caught.value) == (
        "1 of 4 tickers of shard 0 have no complete answer, first B: 2 attempts failed, last: the connection ended"
        " (try the shard again)"
    )
    assert statuses(market, make()) == {"A": "complete", "B": "failed", "C": "complete", "X": "delisted"}
    yahoo.asked.clear()
    yahoo.errors.clear()
    attempt(yahoo, market, last=False)
    assert yahoo.tickers_asked() == {"B", "X"}
    assert statuses(market, make())["B"] == "complete"


def test_the_last_attempt_leaves_the_judgement_to_the_coverage(yahoo: FakeYahoo) -> None:
    market, said = bucket(), list[str]()
    attempt(yahoo, market, last=True, said=said)
    assert statuses(market, make())["B"] == "failed"
    assert sorted(said) == [
        "B failed: 2 attempts failed, last: the connection ended",
        "X delisted: No data found, symbol may be delisted",
    ]


@pytest.mark.parametrize("index", [-1, 1])
def test_a_shard_that_the_plan_does_not_have_is_told(yahoo: FakeYahoo, index: int) -> None:
    with pytest.raises(SettingsError, match=f"the plan of run r has shards 0 to 0, not {index}"):
        run_one_shard(make(), index, bucket(), SETTINGS, None, yahoo.clock, silent, print)


def test_one_worker_takes_one_shard_after_the_other_in_this_process(yahoo: FakeYahoo, s3: FakeS3) -> None:
    told = list[str]()
    run_shards(
        *(make(shards=3), "market", SETTINGS, None, NEXT_DAY.isoformat()),
        lambda done, total, note: told.append(f"{done}/{total} {note}"),
        print,
    )
    assert statuses(Bucket("market"), make(shards=3)) == {
        "A": "complete",
        "B": "failed",
        "C": "complete",
        "X": "delisted",
    }
    assert (told[0], told[-1]) == ("0/4 tickers", "4/4 tickers: 2 complete, 1 delisted, 1 failed")

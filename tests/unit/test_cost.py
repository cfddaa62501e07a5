"""What a deployment costs, against sums worked out by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
from click.testing import CliRunner

from app.cli import cli
from app.errors import SettingsError
from infra.cost.assumptions import read_assumptions
from infra.cost.lines import Line
from infra.cost.prices import read_prices
from infra.cost.report import Estimate, estimate, read_deployment, total
from infra.cost.resources import PRICED
from infra.cost.workload import Workload

IDLE_LIMIT_USD = 2.0


def priced(*context: str, assume: Sequence[str] = ()) -> Estimate:
    """The estimate for cdk.json with these flags."""
    return estimate(read_deployment(context), read_assumptions(assume), read_prices())


def usd(lines: Sequence[Line], phase: str = "", what: str = "") -> float:
    """Cost of the lines of one phase, and of one kind."""
    return total([line for line in lines if phase in ("", line.phase) and what in line.what])


def test_an_idle_month_with_the_defaults_costs_at_most_two_dollars() -> None:
    lines = priced()["idle_month"]
    assert total(lines) <= IDLE_LIMIT_USD
    assert usd(lines, what="key") == 1.0


def test_a_rotated_key_is_named_as_what_lifts_the_month_above_it() -> None:
    rotated = total(priced(assume=["key_rotations=1"])["idle_month"])
    assert rotated == pytest.approx(total(priced()["idle_month"]) + 1.0)


def test_a_fleet_of_t2_2xlarge_costs_what_a_calculation_by_hand_says() -> None:
    context = (
        "settings.ingest.shards=16",
        "settings.ingest.in_flight=5",
        "settings.ingest.days=14",
        "settings.ingest.journal_s=20",
    )
    assume = ("tickers=160", "s_per_request=30", "instance_overhead_min=4", "flow_log_mb_per_hour=0")
    lines = priced(*context, assume=assume)["full_run"]
    # 16 shards of 10 tickers, 8 at once on an instance: 2 instances. 20 requests, 5 in flight: 4 times 30 s.
    hours = 2 * (4 + 2) / 60
    # 10 days of bars and answers, each read and written by every shard and by the merge, which reads all parts. A shard
    # reads the plan and the answers that are held, and writes a manifest and a journal: every 20 s of 2 minutes. It
    # lists bars, answers and journal, the merge each day. The run has a plan, a coverage and a result.
    day_objects = 2 * 10
    puts = (16 + 1) * day_objects + 16 * (1 + 6) + 3
    listings = 3 * 16 + day_objects
    gets = 16 * (1 + 10 + day_objects) + (16 + 1) * day_objects + 16
    in_s3 = (puts + listings) * 5e-6 + gets * 4e-7
    by_hand = hours * (0.3712 + 0.005) + 40 * hours / 730 * 0.08 + in_s3 + 3 * 0.30 / 730
    assert usd(lines, "ingest") == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("tickers", "shards", "rate_per_s", "by_hand_s"),
    [
        (40, 8, 0, 5 * 30),  # 25 requests of a shard, 5 in flight
        (40, 8, 1, 200),  # 200 requests of the run
        (80, 80, 1, 3 * 160),  # 32 shards at once, so 3 rounds; each has 5 requests and a 32nd of the budget
    ],
)
def test_a_fetch_takes_as_long_as_its_requests_in_flight_or_its_budget_allow(
    tickers: int, shards: int, rate_per_s: float, by_hand_s: float
) -> None:
    flags = ("in_flight=5", f"shards={shards}", f"rate_per_s={rate_per_s}")
    deployment = read_deployment([f"settings.ingest.{flag}" for flag in flags])
    work = Workload(deployment, read_assumptions([f"tickers={tickers}", "s_per_request=30"]))
    assert work.ingest_s == pytest.approx(by_hand_s)


def test_a_training_run_costs_what_a_calculation_by_hand_says() -> None:
    context = ("settings.training.epochs=3", "training.instances=2", "training.instance_type=ml.g5.xlarge")
    assume = ("tickers=10", "training_overhead_min=3", "sequences_per_s=1000", "rank_efficiency=0.5")
    lines = priced(*context, assume=assume)["training_run"]
    # 21 sessions less 3 and 2, 390 - 60 - 5 + 1 windows each; two ranks of half the speed are as fast as one.
    hours = 2 * (180 + 3 * 10 * 16 * 326 / 1000) / 3600
    assert usd(lines, "train", "ml.g5.xlarge") == pytest.approx(hours * 1.408)
    assert usd(lines, "workflow") + usd(lines, "train") == pytest.approx(total(lines))


def test_several_horizons_store_as_many_predictions_and_leave_fewer_training_windows() -> None:
    deployments = [read_deployment([f"settings.dataset.horizons_min={horizons}"]) for horizons in ("[5]", "[1,5,10]")]
    one, three = (Workload(deployment, read_assumptions(["tickers=10"])) for deployment in deployments)
    # Two texts of 16 bytes at most, an int32 twice, and eight times 8 bytes: of 250 sessions, 390 minutes, 10 tickers.
    row = 2 * 16 + 2 * 4 + 8 * 8
    assert (three.stored_gb - one.stored_gb) * 1e9 == pytest.approx(250 * 390 * 10 * 2 * row)
    assert (one.sequences, three.sequences) == (10 * 16 * 326, 10 * 16 * 321)


def test_a_session_in_real_time_keeps_two_nodes_for_six_hours_and_a_half() -> None:
    lines = priced("settings.serving.speed=1", assume=["cluster_overhead_min=0"])["full_run"]
    assert usd(lines, "serve", "m5.2xlarge") == pytest.approx(2 * 6.5 * (0.384 + 0.096))


def test_a_trigger_of_a_second_saves_most_listings() -> None:
    at_once = priced("settings.serving.trigger_s=0")["serving_hour"]
    waiting = priced("settings.serving.trigger_s=1")["serving_hour"]
    saved = (20 - 1) * 3600 * 5e-6
    assert usd(at_once, what="listings") - usd(waiting, what="listings") == pytest.approx(saved)


@pytest.mark.parametrize(
    ("group", "context"), [("ingestion", ("ingestion.instance_type=m6i.2xlarge",)), ("training", ())]
)
def test_spot_is_cheaper_than_on_demand(group: str, context: tuple[str, ...]) -> None:
    on_demand, spot = (total(priced(*context, *more)["full_run"]) for more in ((), (f"{group}.spot=true",)))
    assert spot < on_demand


@pytest.mark.parametrize(
    "more", [("training.instances=4",), ("inference.core_instances=3",), ("settings.ingest.shards=24",)]
)
def test_more_instances_cost_more(more: tuple[str, ...]) -> None:
    assert total(priced(*more)["full_run"]) > total(priced()["full_run"])


def test_a_cluster_that_is_always_on_is_most_of_the_month_and_none_of_a_run() -> None:
    always = priced("always_on=true")
    assert usd(always["idle_month"], what="m5.2xlarge") == pytest.approx(2 * 730 * (0.384 + 0.096))
    assert total(always["idle_month"]) > 300 * total(priced()["idle_month"])
    assert not [line for line in always["full_run"] if "m5.2xlarge" in line.what]


def test_a_volume_is_billed_only_where_a_training_type_has_no_disk_of_its_own() -> None:
    prices = read_prices()
    added = {**prices.groups["sagemaker"], "usd": {"ml.p3.2xlarge": 3.825}}
    deployment = read_deployment(["training.instance_type=ml.p3.2xlarge"])
    with_p3 = replace(prices, groups={**prices.groups, "sagemaker": added})
    lines = estimate(deployment, read_assumptions(()), with_p3)["training_run"]
    assert [line.price.name for line in lines if line.what == "disk"] == ["sagemaker-volume"]
    assert not [line for line in priced()["training_run"] if line.what == "disk"]


@pytest.mark.parametrize(
    ("flag", "group"),
    [
        ("ingestion.instance_type=r5.large", "ec2"),
        ("training.instance_type=ml.p4d.24xlarge", "sagemaker"),
        ("inference.instance_type=m6i.2xlarge", "emr"),
    ],
)
def test_a_type_without_a_price_is_refused_with_the_place_to_add_it(flag: str, group: str) -> None:
    with pytest.raises(SettingsError, match=rf"prices\.{group}\.usd of infra/prices\.json"):
        priced(flag)


def test_every_price_has_a_source_and_is_asked_for_by_some_resource() -> None:
    prices = read_prices()
    assert all(group["page"].startswith("https://aws.amazon.com/") for group in prices.groups.values())
    assert set(prices.groups) == {name for names in PRICED.values() for name in names}


def test_a_universe_that_a_run_would_fetch_has_about_its_size() -> None:
    assert Workload(read_deployment(["universe=sp500,SPY"]), read_assumptions(())).tickers == 504


def test_the_command_prints_the_totals_and_the_assumptions() -> None:
    found = CliRunner().invoke(cli, ["cost", "--assume", "tickers=500"])
    assert found.exit_code == 0, found.output
    assert "one month in which nothing runs" in found.output
    assert any(line.split()[:2] == ["tickers", "500"] for line in found.output.splitlines())


def test_the_json_holds_lines_that_sum_up_to_its_totals() -> None:
    answer = json.loads(CliRunner().invoke(cli, ["cost", "--json", "-c", "training.instances=2"]).output)
    assert set(answer["estimates"]) == {"full_run", "training_run", "serving_hour", "idle_month"}
    for part in answer["estimates"].values():
        assert part["usd"] == pytest.approx(sum(line["quantity"] * line["unit_usd"] for line in part["lines"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--assume", "speed=3"], "unknown assumption speed: allowed are tickers"),
        (["--assume", "spot_discount=2"], "assumption spot_discount='2': input should be less than 1"),
        (["--assume", "tickers"], "--assume 'tickers' is not of the form name=value"),
        (["-c", "always_on"], "-c 'always_on' is not of the form key=value"),
        (["-c", "training.gpus=2"], "unknown setting training.gpus"),
    ],
)
def test_a_wrong_option_is_answered_by_what_is_allowed(arguments: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        CliRunner().invoke(cli, ["cost", *arguments], catch_exceptions=False)
    assert message in str(caught.value)


def test_an_estimate_needs_neither_the_cdk_nor_boto3() -> None:
    code = "import sys; from app.cli import cli; cli(['cost'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"aws_cdk", "boto3"} & set(done.stdout.splitlines()[-1].split())

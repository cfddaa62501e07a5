"""What summary.json says of an execution, also of one that did not get far."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from app.settings import Settings, load
from embedded.execution import Execution
from embedded.local import Local
from embedded.market.bars import Market
from embedded.market.simulated import SimulatedMarket, attainable_skills, simulate
from embedded.phases import PHASES, PhaseRun
from embedded.report import conclude
from embedded.run import Options, Outcome, _attainable
from embedded.summary import collect

START = datetime(2026, 3, 16, 20, 0, tzinfo=UTC)
DEPLOYED = {
    "stacks": {}, "not_created": {}, "seconds": 1.0, "adapted": ["a", "b"], "ignored": {"AWS::KMS::Key": ["Rotation"]}
}  # fmt: skip
JUDGED = {"role_calls": 7, "calls_without_grant": [], "unused_grants_unjustified": [{}, {}]}


def judged(mae: float, skill: float, **changes: Any) -> dict[str, Any]:
    """Metrics of one horizon, as far as they are shown."""
    interval = [skill - 0.02, skill + 0.02]
    return {
        "mae_usd": mae, "mae_persistence_usd": 2 * mae, "skill": skill, "skill_interval": interval,
        "significant": True, "direction": 0.55, "direction_significant": True, "coverage": 0.801, **changes,
    }  # fmt: skip


METRICS = {
    "windows_train": 40, "ranks": 2, "rank_weight_max_diff": 0.0, "validation": {}, "linear": {"test": {}},
    "test": {"skill": 0.06, "horizons": {"1": judged(0.1, 0.04), "10": judged(0.3, 0.08)}},
}  # fmt: skip


def summary(
    status: str,
    *succeeded: str,
    iam: dict[str, Any],
    error: str | None = None,
    attainable: dict[int, float] | None = None,
) -> dict[str, Any]:
    phases = [PhaseRun(name, "succeeded" if name in succeeded else "not started") for name in PHASES]
    if "train" in succeeded:
        phases[PHASES.index("train")].result = {"metrics": METRICS, "model_id": "m"}
    execution = Execution("arn", "r", status, START, None, ())
    local = Local("http://127.0.0.1:1", "simulated", (), None, DEPLOYED, 0)
    return collect(local, "r", Outcome(execution, phases, error, iam=iam), Settings(), 1, attainable)


def test_unused_grants_are_counted_when_all_phases_have_gone_their_way() -> None:
    whole = summary("SUCCEEDED", *PHASES, iam=JUDGED)
    assert whole["iam"] == {"calls": 7, "calls_without_grant": 0, "unused_grants_unjustified": 2}
    assert summary("FAILED", "ingest", iam=JUDGED)["iam"]["unused_grants_unjustified"] is None


def test_the_deployment_says_what_was_adapted_and_what_was_ignored() -> None:
    assert summary("SUCCEEDED", *PHASES, iam=JUDGED)["deployment"] == {
        "seconds": 1.0, "not_created": {}, "adapted": 2, "ignored": {"AWS::KMS::Key": ["Rotation"]}
    }  # fmt: skip


def test_errors_are_means_over_the_horizons_and_the_attainable_skill_is_by_horizon() -> None:
    known = summary("SUCCEEDED", *PHASES, iam=JUDGED, attainable={1: 0.05, 10: 0.1})
    assert (known["mae_usd"], known["mae_persistence_usd"], known["skill"]) == (0.2, 0.4, 0.06)
    assert known["attainable_skill"] == {"1": 0.05, "10": 0.1}
    assert set(known["metrics"]) == {"validation", "test", "linear"}
    unknown = summary("FAILED", "ingest", iam=JUDGED)
    assert {unknown[name] for name in ("mae_usd", "mae_persistence_usd", "skill", "attainable_skill")} == {None}


def test_attainable_skill_is_of_the_run_s_own_market_tickers_and_test_days() -> None:
    simulated = SimulatedMarket(tickers=3, sessions=4)
    market = simulate(simulated)
    days = [day.isoformat() for day in market.days[-2:]]
    phases = [PhaseRun("ingest", "succeeded"), PhaseRun("dataset", "succeeded", result={"days": {"test": days}})]
    options = Options(yahoo_flags=("--sim", "tickers=3", "--latency-ms", "1", "--sim", "sessions=4"))
    used = load({}, ["dataset.horizons_min=[1,5]"])
    two = Market({ticker: market.bars[ticker] for ticker in ("SIM001", "SIM003")})
    local = Local("http://127.0.0.1:1", "simulated", ("SIM001", "SIM003", "GONE"), None, DEPLOYED, 0)
    expected = attainable_skills(simulated, two, (1, 5), market.days[-2:], 60)
    assert _attainable(options, local, phases, used) == expected
    assert _attainable(options, replace(local, market="bars.parquet"), phases, used) == {}
    assert _attainable(options, local, phases[:1], used) == {}


def said_of(found: dict[str, Any], folder: Path) -> str:
    said = StringIO()
    conclude(Console(file=said, width=160), found, folder)
    return " ".join(said.getvalue().split())


def test_the_report_compares_each_horizon_with_persistence_and_with_what_is_attainable(tmp_path: Path) -> None:
    iam = {**JUDGED, "unused_grants_unjustified": []}
    text = said_of({**summary("SUCCEEDED", *PHASES, iam=iam, attainable={1: 0.05}), "tickers_requested": 1}, tmp_path)
    assert (
        "model on the test days, 1 min ahead: mean absolute error 0.10000 USD, persistence 0.20000 USD; skill +0.0400"
        " of +0.0500 attainable (95 %: +0.0200 to +0.0600); direction 0.550; 80.1% within p10 to p90" in text
    )
    assert "10 min ahead: mean absolute error 0.30000 USD, persistence 0.60000 USD; skill +0.0800 (95 %" in text


def test_what_is_not_significant_is_called_so_and_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    few = {"skill_interval": None, "significant": None, "direction_significant": None}
    unknown = {"significant": False, "direction": None, "direction_significant": None, "coverage": None}
    found = summary("SUCCEEDED", *PHASES, iam={**JUDGED, "unused_grants_unjustified": []})
    horizons = {"1": judged(0.1, 0.04, **few), "5": judged(0.2, 0.01, **unknown)}
    found |= {"metrics": {"test": {"horizons": horizons}}, "tickers_requested": 1}
    text = said_of(found, tmp_path)
    assert "skill +0.0400, not significant; direction 0.550, not significant; 80.1% within p10 to p90" in text
    assert "skill +0.0100 (95 %: -0.0100 to +0.0300), not significant ranks: 2" in text


def test_the_report_shows_all_horizons_of_the_first_tickers(tmp_path: Path) -> None:
    rows = [
        {
            "ticker": f"T{i}", "as_of": "2026-03-24T19:59:00+00:00", "horizon_min": horizon, "last_price": 100.0,
            "predicted_price": 101.0, "predicted_return": 0.01,
            "price_p10": 99.5, "price_p50": 101.0, "price_p90": 102.5,
        }
        for i in range(7)
        for horizon in (1, 10)
    ]  # fmt: skip
    (tmp_path / "latest.json").write_text(json.dumps({"schema_version": 2, "predictions": rows}))
    text = said_of(summary("FAILED", iam=JUDGED), tmp_path)
    assert [text.count(f"T{i} ") for i in range(7)] == [2] * 5 + [0] * 2
    assert text.count("99.5000 to 102.5000") == 10


def test_a_run_whose_embedded_aws_is_gone_has_failed() -> None:
    found = summary("RUNNING", iam={}, error="it does not answer any more")
    assert (found["status"], found["error"]) == ("failed", "it does not answer any more")
    assert set(found["iam"].values()) == {None}
    said = StringIO()
    conclude(Console(file=said), found, Path("/nowhere"))
    assert "run r: failed" in said.getvalue()

"""What is printed at the end of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app import contract
from app.processes import OUR_MESSAGE
from embedded.fates import coverage_lines
from embedded.summary import COVERAGE, LOGS, SUMMARY

_TICKERS_SHOWN = 5


def conclude(console: Console, summary: Mapping[str, Any], out: Path) -> None:
    """Print the tables, and on standard error why the run failed, if it did."""
    console.print(_phase_table(summary))
    if (coverage := out / COVERAGE).is_file():
        for line in coverage_lines(json.loads(coverage.read_bytes())):
            console.print(line, markup=False)
    if summary["tickers_requested"] is not None:
        for line in _findings(summary):
            console.print(line, markup=False)
    if (latest := out / contract.LATEST_PREDICTIONS_KEY).is_file():
        console.print(_prediction_table(json.loads(latest.read_bytes())["predictions"]))
    console.print(f"summary: {out / SUMMARY}", markup=False)
    if summary["error"]:
        error = f"{OUR_MESSAGE}{summary['error']} (logs: {out / LOGS})"
        Console(stderr=True, highlight=False, soft_wrap=True).print(error, markup=False)


def _findings(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    if summary["volume_faults"]:
        days = ", ".join(summary["volume_fault_days"])
        lines.append(f"faulty volume: {summary['volume_faults']} ticker-days, on {days}")
    if summary["mae_usd"] is not None:
        attainable = summary["attainable_skill"] or {}
        for minutes, test in summary["metrics"]["test"]["horizons"].items():
            lines.append(f"model on the test days, {minutes} min ahead: {_judged(test, attainable.get(minutes))}")
        if summary["promotion_reason"] is not None:
            lines.append(
                f"model {'promoted' if summary['promoted'] else 'not promoted'}: {summary['promotion_reason']}"
            )
        lines.append(f"ranks: {summary['ranks']}, largest weight difference {summary['rank_weight_max_diff']:g}")
    iam = summary["iam"]
    unjustified = iam["unused_grants_unjustified"]
    unused = [] if unjustified is None else [f"{unjustified} unused grants without a reason"]
    calls = [f"{iam['calls']:,} calls with roles, {iam['calls_without_grant']} without a grant"] if iam["calls"] else []
    execution = [f"{len(summary['execution']['states'])} states entered, {summary['execution']['retries']} retries"]
    return [
        *lines,
        f"execution {summary['execution']['status']}: {'; '.join([*execution, *calls, *unused])}",
        f"peak memory of all processes: {summary['peak_rss_mib']:,} MiB",
    ]


def _judged(test: Mapping[str, Any], attainable: float | None) -> str:
    """A horizon's metrics in a line. attainable: the skill that no model can exceed but by luck, where it is known."""
    interval = test["skill_interval"]
    between = f" (95 %: {interval[0]:+.4f} to {interval[1]:+.4f})" if interval else ""
    best = f" of {attainable:+.4f} attainable" if attainable is not None else ""
    told = [
        f"mean absolute error {test['mae_usd']:.5f} USD, persistence {test['mae_persistence_usd']:.5f} USD",
        f"skill {test['skill']:+.4f}{best}{between}{_doubt(test['significant'])}",
    ]
    if test["direction"] is not None:
        told.append(f"direction {test['direction']:.3f}{_doubt(test['direction_significant'])}")
    if test["coverage"] is not None:
        told.append(f"{test['coverage']:.1%} within p10 to p90")
    return "; ".join(told)


def _doubt(significant: bool | None) -> str:
    return "" if significant else ", not significant"


def _phase_table(summary: Mapping[str, Any]) -> Table:
    table = Table("phase", "status", "wall s", "rows", "where", title=f"run {summary['run_id']}: {summary['status']}")
    for phase in summary["phases"]:
        rows = "" if phase["rows"] is None else f"{phase['rows']:,}"
        table.add_row(phase["name"], phase["status"], f"{phase['wall_s']:.1f}", rows, phase["where"] or "")
    return table


def _prediction_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("ticker", "as of (UTC)", "min ahead", "last USD", "predicted USD", "move bp", "p10 to p90 USD")
    table = Table(*columns, title="newest predictions")
    shown = list(dict.fromkeys(row["ticker"] for row in rows))[:_TICKERS_SHOWN]
    for row in rows:
        if row["ticker"] in shown:
            table.add_row(
                row["ticker"],
                row["as_of"],
                str(row["horizon_min"]),
                f"{row['last_price']:.4f}",
                f"{row['predicted_price']:.4f}",
                f"{row['predicted_return'] * 1e4:+.2f}",
                f"{row['price_p10']:.4f} to {row['price_p90']:.4f}",
            )
    return table

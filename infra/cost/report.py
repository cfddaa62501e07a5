"""The estimate as JSON and as tables on a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from app.errors import SettingsError
from infra.context import load, written_context
from infra.cost.assumptions import Assumptions, read_assumptions
from infra.cost.lines import Bill, Line
from infra.cost.prices import Prices, read_prices
from infra.cost.workload import Workload
from infra.settings import Deployment

_TITLES = {
    "full_run": "one run of all phases",
    "training_run": "one run of training alone",
    "serving_hour": "one hour of serving; a cluster that is always on is in the month",
    "idle_month": "one month in which nothing runs",
}
_NOT_COUNTED = (
    "Not counted: taxes, failed tries, free tiers except where a line says so, requests to KMS (20,000 a month are"
    " free), access logs and the cluster's logs (30 days in S3), bytes out of AWS (100 GB a month are free),"
    " a t3 instance's processor time beyond its share, what consumers read."
)
Estimate = Mapping[str, Sequence[Line]]


def estimate(deployment: Deployment, assumed: Assumptions, prices: Prices) -> Estimate:
    """Lines of full_run, training_run, serving_hour and idle_month. Raises SettingsError for a type without a price."""
    bill = Bill(Workload(deployment, assumed), prices)
    return {
        "full_run": bill.full_run(),
        "training_run": bill.training_run(),
        "serving_hour": bill.serving_hour(),
        "idle_month": bill.idle_month(),
    }


def total(lines: Sequence[Line]) -> float:
    """Sum in USD."""
    return sum(line.usd for line in lines)


def read_deployment(flags: Sequence[str]) -> Deployment:
    """What `cdk deploy` with ``-c key=value`` flags would make of cdk.json; SettingsError as infra.context.load."""
    context = written_context()
    for flag in flags:
        key, equals, value = flag.partition("=")
        if not equals:
            raise SettingsError(f"-c {flag!r} is not of the form key=value, e.g. training.instances=2")
        context[key] = value
    return load(context)


def show(context: Sequence[str], assume: Sequence[str], *, as_json: bool) -> None:
    """Print the estimate for the flags of the command line."""
    deployment, assumed, prices = read_deployment(context), read_assumptions(assume), read_prices()
    found = estimate(deployment, assumed, prices)
    if as_json:
        print(json.dumps(to_json(found, assumed, prices), indent=1))
    else:
        _print(found, assumed, prices)


def to_json(found: Estimate, assumed: Assumptions, prices: Prices) -> dict[str, Any]:
    """Everything that the tables show, for programs."""
    return {
        "prices": {"as_of": prices.as_of, "region": prices.region, "source": prices.source},
        "assumptions": assumed.model_dump(),
        "estimates": {
            name: {"usd": total(lines), "lines": [_line(line) for line in lines]} for name, lines in found.items()
        },
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "phase": line.phase,
        "what": line.what,
        "quantity": line.quantity,
        "unit": line.price.unit,
        "unit_usd": line.price.usd,
        "usd": line.usd,
        "note": line.note,
        "page": line.price.page,
    }


def _print(found: Estimate, assumed: Assumptions, prices: Prices) -> None:
    console = Console(highlight=False)
    phases: dict[str, list[Line]] = {}
    for line in [*found["full_run"], *found["idle_month"]]:
        phases.setdefault(line.phase, []).append(line)
    for phase, lines in phases.items():
        console.print(_phase_table(phase, lines), "")
    totals = Table("USD", title="Totals", title_justify="left", box=None)
    totals.add_column("for")
    for name, title in _TITLES.items():
        totals.add_row(f"{total(found[name]):.2f}", title)
    console.print(totals, "", _assumption_table(assumed), "")
    console.print(f"Prices: {prices.region}, {prices.as_of}. {prices.source}.", _NOT_COUNTED, sep="\n")


def _phase_table(phase: str, lines: Sequence[Line]) -> Table:
    table = Table(title=f"{phase}: {total(lines):.4f} USD", title_justify="left", box=None)
    table.add_column("what", no_wrap=True)
    for name in ("quantity", "unit price", "USD"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for line in lines:
        quantity = f"{_plain(line.quantity, 4)} {line.price.unit}"
        table.add_row(line.what, quantity, _plain(line.price.usd, 10), f"{line.usd:.4f}", line.note)
    return table


def _plain(value: float, digits: int) -> str:
    """Without an exponent and without zeros at its end."""
    return f"{value:,.{digits}f}".rstrip("0").rstrip(".")


def _assumption_table(assumed: Assumptions) -> Table:
    table = Table(title="Assumptions: --assume NAME=VALUE changes one", title_justify="left", box=None)
    table.add_column("name", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("meaning", overflow="fold")
    for name, field in Assumptions.model_fields.items():
        table.add_row(name, json.dumps(getattr(assumed, name)), field.description)
    return table

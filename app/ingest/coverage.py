"""The run's coverage: what every ticker got, joined from the manifests of its shards, and judged.

A Lambda judges it too: nothing but the standard library and boto3 is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from app import contract
from app.errors import ObjectMissing, UniverseError, YahooError
from app.ingest.plan import Plan
from app.storage import Bucket

_STATUSES = ("complete", "partial", "delisted", "failed")
_CLOSED = "empty-by-calendar"
_COUNTS = ("requests", "retries", "rate_limited", "verified")


def write_coverage(plan: Plan, market: Bucket, *, min_coverage: float, on_delisted: str) -> dict[str, Any]:
    """Join the manifests into the run's coverage, store it and judge it: `join_manifests`, then `judge`."""
    coverage = join_manifests(plan, market)
    judge(coverage, min_coverage=min_coverage, on_delisted=on_delisted)
    return coverage


def join_manifests(plan: Plan, market: Bucket) -> dict[str, Any]:
    """Join the manifests of the plan's shards into the run's coverage, store and return it.

    `coverage` in it is the share of known tickers that have bars, and no request that failed; `by_day` counts the
    tickers of each day by status; a ticker's `days` are those that are neither complete nor closed. Raises YahooError
    when a shard left no manifest.
    """
    tickers = [t for shard in plan.shards for t in _manifest(plan, shard.name, market)]
    early = _days_before_data(plan, tickers)
    days = [day for session in plan.sessions if (day := session.day.isoformat()) not in early]
    by_day = {day: Counter(str(t["days"][day]) for t in tickers) for day in days}
    by_day |= {day: Counter({_CLOSED: len(tickers)}) for day in plan.closed_days if day > days[0]}
    lines = sorted((_line(ticker, days) for ticker in tickers), key=lambda line: str(line["ticker"]))
    counts = Counter(str(line["status"]) for line in lines)
    coverage = {
        "days": days,
        "days_before_data": early,
        "requested": len(lines),
        "statuses": {status: counts[status] for status in _STATUSES},
        "coverage": _share_with_bars(lines),
        "by_day": {day: dict(by_day[day]) for day in sorted(by_day)},
        **{name: sum(int(line[name]) for line in lines) for name in ("rows", "held")},
        **{name: sum(int(line["fetch"][name]) for line in lines) for name in _COUNTS},
        "faults": dict(sum((Counter(line["faults"]) for line in lines), Counter())),
        "tickers": lines,
    }
    market.put_json(contract.coverage_key(plan.run_id), coverage)
    return coverage


def judge(coverage: Mapping[str, Any], *, min_coverage: float, on_delisted: str) -> None:
    """Whether the run may go on with what it got.

    on_delisted: `fail` or `skip`. Raises UniverseError for tickers that Yahoo does not know (unless they are to be
    skipped, and some are known) and YahooError when a smaller share of the known tickers than `min_coverage` has bars.
    """
    delisted = [t["ticker"] for t in coverage["tickers"] if t["status"] == "delisted"]
    known = coverage["requested"] - len(delisted)
    if not known:
        raise UniverseError(f"Yahoo knows none of the tickers {_some(delisted)}: correct the universe")
    if delisted and on_delisted == "fail":
        raise UniverseError(
            f"Yahoo knows no ticker {_some(delisted)}: correct the universe, or set ingest.on_delisted=skip"
        )
    if coverage["coverage"] < min_coverage:
        without = [t for t in coverage["tickers"] if _is_without_bars(t)]
        name = without[0]["ticker"]
        error = (without[0]["error"] or "no bars").removeprefix(f"{name}: ")
        raise YahooError(
            f"{len(without)} of {known} tickers have no complete answer, first {name}: {error}"
            " (wait and run again, or lower ingest.min_coverage)"
        )


def ingest_result(coverage: Mapping[str, Any], market: Bucket) -> dict[str, Any]:
    """The ingest phase's result, as it is stored and summed up."""
    return {
        "rows": coverage["rows"],
        "held": coverage["held"],
        "where": f"s3://{market.name}/{contract.BARS_PREFIX}",
        **{key: coverage[key] for key in ("requested", "statuses", "coverage", "days", "faults", *_COUNTS)},
    }


def _line(ticker: Mapping[str, Any], days: Sequence[str]) -> dict[str, Any]:
    """A ticker's line of its manifest, for the days that the run has; which minutes are missing stays there."""
    statuses = {day: ticker["days"][day] for day in days if ticker["days"][day] != "complete"}
    status = ticker["status"]
    if status == "complete" and statuses:
        status = "partial"  # its first bar is later than that of others
    missing = {day: ticker["missing"][day] for day in days if day in ticker["missing"]}
    kept = {name: value for name, value in ticker.items() if name != "gaps"}
    return {**kept, "status": status, "days": statuses, "missing": missing}


def _share_with_bars(lines: Sequence[Mapping[str, Any]]) -> float:
    known = [line for line in lines if line["status"] != "delisted"]
    return sum(not _is_without_bars(line) for line in known) / len(known) if known else 0.0


def _is_without_bars(line: Mapping[str, Any]) -> bool:
    return line["status"] == "failed" or (line["status"] == "partial" and not line["rows"])


def _days_before_data(plan: Plan, tickers: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first sessions of the plan on which no ticker has a bar: older than what the server holds."""
    served = [t for t in tickers if t["rows"]]
    early: list[str] = []
    for session in plan.sessions if served else ():
        day = session.day.isoformat()
        if not all(t["days"][day] == "partial" and t["missing"].get(day) == session.minutes for t in served):
            break
        early.append(day)
    return early


def _manifest(plan: Plan, shard: str, market: Bucket) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = market.get_json(contract.manifest_key(plan.run_id, shard))["tickers"]
    except ObjectMissing as exc:
        raise YahooError(f"shard {shard} left no manifest: run `stockflow ingest` for it again") from exc
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

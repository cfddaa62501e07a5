"""The run's coverage: what every ticker got, joined from the manifests of its shards, and judged.

A Lambda judges it too: nothing but the standard library and boto3 is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from app import contract
from app.errors import ObjectMissing, UniverseError, YahooError
from app.ingest.plan import Plan, is_complete
from app.storage import Bucket

_WITHOUT_BARS = ("failed", "empty")
_STATUSES = ("complete", "partial", "empty", "unknown", "failed")


def write_coverage(
    plan: Plan, market: Bucket, *, complete_share: float, min_coverage: float, on_unknown: str
) -> dict[str, Any]:
    """Join the manifests into the run's coverage, store it and judge it: `join_manifests`, then `judge`."""
    coverage = join_manifests(plan, market, complete_share)
    judge(coverage, min_coverage=min_coverage, on_unknown=on_unknown)
    return coverage


def join_manifests(plan: Plan, market: Bucket, complete_share: float) -> dict[str, Any]:
    """Join the manifests of the plan's shards into the run's coverage, store and return it.

    `coverage` in it is the share of known tickers that have bars. Raises YahooError when a shard left no manifest.
    """
    tickers = {t["ticker"]: t for shard in plan.shards for t in _manifest(plan, shard.name, market)}
    early = _days_before_data(plan, tickers)
    for ticker in tickers.values():
        ticker["missing"] = {day: count for day, count in ticker["missing"].items() if day not in early}
        if ticker["status"] == "partial" and is_complete(ticker["missing"], plan.sessions, complete_share):
            ticker["status"] = "complete"
    counts = Counter(str(t["status"]) for t in tickers.values())
    coverage = {
        "days": [day for session in plan.sessions if (day := session.day.isoformat()) not in early],
        "days_before_data": early,
        "requested": len(tickers),
        "statuses": {status: counts[status] for status in _STATUSES},
        "coverage": _share_with_bars(counts),
        "rows": sum(int(t["rows"]) for t in tickers.values()),
        "held": sum(int(t["held"]) for t in tickers.values()),
        **{
            name: sum(int(t["fetch"][name]) for t in tickers.values())
            for name in ("requests", "retries", "rate_limited")
        },
        "tickers": [tickers[ticker] for ticker in sorted(tickers)],
    }
    market.put_json(contract.coverage_key(plan.run_id), coverage)
    return coverage


def judge(coverage: Mapping[str, Any], *, min_coverage: float, on_unknown: str) -> None:
    """Whether the run may go on with what it got.

    on_unknown: `fail` or `skip`. Raises UniverseError for unknown tickers (unless they are to be skipped, and
    some are known) and YahooError when a smaller share of the known tickers than `min_coverage` has bars.
    """
    unknown = [t["ticker"] for t in coverage["tickers"] if t["status"] == "unknown"]
    known = coverage["requested"] - len(unknown)
    if not known:
        raise UniverseError(f"Yahoo knows none of the tickers {_some(unknown)}: correct the universe")
    if unknown and on_unknown == "fail":
        raise UniverseError(
            f"Yahoo knows no ticker {_some(unknown)}: correct the universe, or set ingest.on_unknown=skip"
        )
    if coverage["coverage"] < min_coverage:
        without = [t for t in coverage["tickers"] if t["status"] in _WITHOUT_BARS]
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
        **{key: coverage[key] for key in ("requested", "statuses", "coverage", "days")},
        **{key: coverage[key] for key in ("requests", "retries", "rate_limited")},
    }


def _share_with_bars(counts: Mapping[str, int]) -> float:
    known = sum(counts[status] for status in _STATUSES if status != "unknown")
    without = sum(counts[status] for status in _WITHOUT_BARS)
    return (known - without) / known if known else 0.0


def _days_before_data(plan: Plan, tickers: dict[str, dict[str, Any]]) -> list[str]:
    """The first sessions of the plan on which no ticker has a bar: older than what the server holds."""
    served = [t for t in tickers.values() if t["rows"]]
    early: list[str] = []
    for session in plan.sessions:
        day = session.day.isoformat()
        if not all(t["missing"].get(day) == session.minutes for t in served):
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

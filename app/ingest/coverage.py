"""The run's coverage: what every ticker got, joined from the manifests of its shards, and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from app import contract
from app.errors import ObjectMissing, UniverseError, YahooError
from app.ingest.plan import Plan
from app.ingest.shard import is_complete
from app.settings import IngestSettings
from app.storage import Bucket


def write_coverage(plan: Plan, market: Bucket, settings: IngestSettings) -> dict[str, Any]:
    """Join the manifests into the run's coverage, store it and judge it.

    Returns the coverage. Raises UniverseError for unknown tickers (unless they are to be skipped, and some
    are known) and YahooError when fewer known tickers than `min_coverage` have bars.
    """
    tickers = {t["ticker"]: t for shard in plan.shards for t in _manifest(plan, shard.name, market)}
    early = _days_before_data(plan, tickers)
    for ticker in tickers.values():
        ticker["missing"] = {day: count for day, count in ticker["missing"].items() if day not in early}
        if ticker["status"] == "partial" and is_complete(ticker["missing"], plan.sessions, settings.complete_share):
            ticker["status"] = "complete"
    counts = Counter(str(t["status"]) for t in tickers.values())
    coverage = {
        "days": [day for session in plan.sessions if (day := session.day.isoformat()) not in early],
        "days_before_data": early,
        "requested": len(tickers),
        "statuses": {status: counts[status] for status in ("complete", "partial", "empty", "unknown", "failed")},
        "rows": sum(int(t["rows"]) for t in tickers.values()),
        "requests": sum(int(t["fetch"]["requests"]) for t in tickers.values()),
        "retries": sum(int(t["fetch"]["retries"]) for t in tickers.values()),
        "tickers": [tickers[ticker] for ticker in sorted(tickers)],
    }
    market.put_json(contract.coverage_key(plan.run_id), coverage)
    _judge(tickers, settings)
    return coverage


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


def _judge(tickers: dict[str, dict[str, Any]], settings: IngestSettings) -> None:
    unknown = sorted(name for name, t in tickers.items() if t["status"] == "unknown")
    known = len(tickers) - len(unknown)
    if not known:
        raise UniverseError(f"Yahoo knows none of the tickers {_some(unknown)}: correct the universe")
    if unknown and settings.on_unknown == "fail":
        raise UniverseError(
            f"Yahoo knows no ticker {_some(unknown)}: correct the universe, or set ingest.on_unknown=skip"
        )
    without = {name: t["error"] or "no bars" for name, t in tickers.items() if t["status"] in {"failed", "empty"}}
    if (known - len(without)) / known < settings.min_coverage:
        name = min(without)
        error = without[name].removeprefix(f"{name}: ")
        raise YahooError(
            f"{len(without)} of {known} tickers have no complete answer, first {name}: {error}"
            " (wait and run again, or lower ingest.min_coverage)"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

"""The benchmark's figures as text: the original's table beside ours, and the bars with what became of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.scaling.original import INGEST_HEADS, INGEST_S
from benchmarks.figures import Spread
from benchmarks.verdict import Goal

ARM_NAMES = {
    "naive": "one ticker after another, then sequences",
    "naive_download": "  of which downloads",
    "original": "the original's way: a pool of processes, threads, then sequences",
    "original_download": "  of which downloads",
    "yfinance_client": "ours through yfinance's Ticker.history",
    "ours_stored": "ours, bars in S3",
    "ours": "ours, bars in memory",
    "floor": "floor: waiting and parsing alone",
}


def report_lines(figures: Mapping[str, Any], goals: Sequence[Goal], wrong: Sequence[str]) -> Iterator[str]:
    """All that the benchmark prints at its end, line by line."""
    yield from _original_table()
    yield ""
    yield from _arm_table(figures)
    yield ""
    yield from _facts(figures)
    yield from _scaling_table(figures["scaling"])
    yield from _rate_lines(figures["rate"])
    yield from _fault_lines(figures["faults"])
    yield ""
    yield from goal_lines(goals)
    yield from (f"WRONG: {what}" for what in wrong)


def _original_table() -> Iterator[str]:
    yield "the original, 30 days of minutes from Yahoo, seconds:"
    yield f"  {'':<24}" + "".join(f"{head:>12}" for head in INGEST_HEADS)
    for name, seconds in INGEST_S:
        yield f"  {name:<24}" + "".join(f"{value:>12.1f}" for value in seconds)
    yield "  its headline: about 2.5 h -> 36 min -> 5 min, 25 to 30 times faster than one ticker after another"


def _arm_table(figures: Mapping[str, Any]) -> Iterator[str]:
    settings = figures["settings"]
    yield (
        f"here, {settings['tickers']} tickers x {settings['days']} sessions, {settings['latency_ms']:g} ms latency, "
        f"{settings['in_flight']} in flight, {figures['machine']['cores']} cores, {settings['rounds']} rounds, seconds:"
    )
    yield f"  {'':<66}{'median':>9}{'min':>9}{'max':>9}{'ours is':>10}"
    for arm, name in ARM_NAMES.items():
        yield f"  {name:<66}" + _seconds(figures.get(f"{arm}_s"), figures["ours_s"])


def _seconds(arm: Spread | None, ours: Spread | None) -> str:
    if arm is None:
        return f"{'skipped':>9}"
    times = f"{arm['median'] / ours['median']:>9.1f}x" if ours else ""
    return f"{arm['median']:>9.3f}{arm['min']:>9.3f}{arm['max']:>9.3f}{times}"


def _facts(figures: Mapping[str, Any]) -> Iterator[str]:
    asked = {arm: count for arm, count in figures["charts"].items() if count is not None and arm in ARM_NAMES}
    yield "chart requests: " + ", ".join(f"{arm} {count}" for arm, count in asked.items())
    if figures["ours_s"] is not None:
        yield (
            f"ours: {figures['peak_in_flight']} requests in flight at the server; "
            f"{figures['cpu_ms_per_response']['median']:.2f} ms CPU a response, of which parsing and checking "
            f"{figures['parse_ms']['median']:.2f}; {figures['cost_per_ticker_ms']['median']:.2f} ms a ticker"
        )
        yield (
            f"ours: peak memory {figures['peak_rss_mib']:g} MiB; imports, which are not in its time, "
            f"{figures['import_s']['median']:.2f} s"
        )
    if figures["cost_per_ticker_of_100_ms"] is not None:
        yield f"100 of these tickers alone: {figures['cost_per_ticker_of_100_ms']['median']:.2f} ms a ticker"
    if figures["rendered"]:
        yield f"note: the server rendered {figures['rendered']} charts while arms were timed"
    for arm in ("naive", "original"):
        if figures["lost"][arm]:
            yield f"note: the arm {arm} lost {', '.join(figures['lost'][arm])}"


def _scaling_table(scaling: Mapping[str, Any] | None) -> Iterator[str]:
    if scaling is None:
        return
    yield ""
    yield (
        f"strong scaling, {scaling['requests']} requests, {scaling['in_flight']} in flight in each worker process, "
        "bars in S3, medians in seconds:"
    )
    yield f"  {'workers':<10}{'all':>9}{'start-up':>10}{'fetching':>10}{'storing':>9}{'speed-up':>10}{'efficiency':>12}"
    for workers, one in scaling["workers"].items():
        times = [one[name]["median"] for name in ("wall_s", "start_s", "fetch_s", "store_s")]
        yield (
            f"  {workers:<10}{times[0]:>9.2f}{times[1]:>10.2f}{times[2]:>10.2f}{times[3]:>9.2f}"
            f"{one['speedup']:>9.2f}x{one['efficiency']:>12.0%}"
        )
    yield "  speed-ups are of the fetching, from the first request of any worker to the last answer"


def _rate_lines(rate: Mapping[str, Any] | None) -> Iterator[str]:
    if rate is None:
        return
    yield ""
    yield f"a server that lets {rate['rate_per_s']:g} requests a second through, {rate['requests']} requests:"
    for name, arm in rate["arms"].items():
        if arm["sustained_share"] is None:
            share = "too few to tell a rate from its first second's burst (more TICKERS or DAYS, or a lower RATE)"
        else:
            share = (
                f"{arm['sustained_per_s']:.1f} answers a second, {arm['sustained_share']:.1%} of the rate "
                f"without the first second's burst ({arm['share_with_burst'] or 0:.1%} with it)"
            )
        yield f"  {name}: {share}; {arm['answers_429']} refused, {arm['tickers_lost']} tickers lost"


def _fault_lines(faults: Mapping[str, Any] | None) -> Iterator[str]:
    if faults is None:
        return
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(faults["faults"].items())) or "none"
    yield ""
    yield (
        f"with {faults['share']:.0%} of the answers failing ({kinds}): "
        f"{'the same bars, bit for bit' if faults['same_bars'] else 'OTHER BARS'}; "
        f"{faults['server_requests']} requests for {faults['asked']} answers"
    )
    yield (
        f"  {faults['must_be_retried']} failed: {faults['retries']} retries counted, "
        f"{faults['repeated_by_curl']} made by curl itself; {faults['must_be_verified']} short: "
        f"{faults['verified']} second looks"
    )


def goal_lines(goals: Sequence[Goal]) -> Iterator[str]:
    """The bars with what became of them."""
    yield f"{'the bars':<44}{'here':>8}  {'to be':<14} {'':<24} asked at"
    for goal in goals:
        value = "-" if goal.value is None else f"{goal.value:.4g}"
        bound = f"{'at least' if goal.at_least else 'at most'} {goal.limit:g}"
        yield f"  {goal.name:<42}{value:>8}  {bound:<14} {goal.verdict:<24} {goal.asked_at}"

"""The benchmark's figures: pure functions from what was measured to what is reported."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.job import Outcome, Run
from benchmarks.options import ARMS, Options
from embedded.yahoo.faults import FaultKind
from embedded.yahoo.server import Stats

Spread = dict[str, Any]
"""median, min and max of the rounds, and the rounds themselves, in order."""


@dataclass(frozen=True)
class Measured:
    """One run of an arm, the counters of its Yahoo after it, and the CPU seconds that this Yahoo used for it."""

    run: Run
    stats: Stats
    server_cpu_s: float

    @property
    def charts(self) -> int:
        """Chart requests that reached the server."""
        return self.stats["requests"].get("chart", 0)

    @property
    def answered_per_s(self) -> float:
        """Charts of status 200 a second, from the first one to the last one; 0 with less than two."""
        took_s = self.stats["last_chart_s"] - self.stats["first_chart_s"]
        return self.stats["statuses"].get("200", 0) / took_s if took_s else 0.0

    @property
    def unseen(self) -> int:
        """Requests that no count of ours has: those that curl repeats itself, when a kept connection was dropped."""
        return self.charts - int(self.run.outcome.counts["requests"])

    @property
    def failures(self) -> int:
        """Answers that were none, each of which takes a retry. A short one is an answer: it takes a second look."""
        return sum(count for kind, count in self.stats["faults"].items() if kind != _SHORT)


Rounds = Mapping[str, Sequence[Measured]]
"""By arm, a run for each round; of an arm that was skipped there is none."""

_LONG_S = 5.0
"""The least time that a rate must last to be told from the burst of its first second."""
_SHORT: FaultKind = "short"
PARSING = "parsing"
"""The arm that measures what an answer costs, for the floor."""
FEW = "ours_100"
"""Our arm over 100 of the tickers."""


def spread(values: Sequence[float]) -> Spread | None:
    """Median, least, greatest and all of them; None without any."""
    if not values:
        return None
    rounds = [round(value, 6) for value in values]
    return {"median": statistics.median(rounds), "min": min(rounds), "max": max(rounds), "rounds": rounds}


def floor_s(requests: int, latency_ms: float, in_flight: int, parse_ms: float) -> float:
    """Seconds that one core with so many requests in flight can hardly beat: waiting, then parsing each answer.

    Even few requests wait for one latency.
    """
    return (max(1.0, requests / in_flight) * latency_ms + requests * parse_ms) / 1000


def ratio(above: Spread | None, below: Spread | None) -> float | None:
    """One median over another; None when one was not measured."""
    return None if above is None or below is None else float(round(above["median"] / below["median"], 3))


def arm_figures(rounds: Rounds, options: Options, requests: int) -> dict[str, Any]:
    """Seconds of all arms and what follows from them; None for what was skipped.

    requests: charts that the plan takes, one for each ticker and span.
    """
    runs = {arm: rounds.get(arm, ()) for arm in (*ARMS, FEW)}
    parse_ms = [one.run.outcome.counts["parse_ms"] for one in rounds[PARSING]]
    floors_s = [floor_s(requests, options.latency_ms, options.in_flight, cost) for cost in parse_ms]
    figures: dict[str, Any] = {
        **{f"{arm}_s": _over(runs[arm], lambda one: one.run.wall_s) for arm in runs},
        "floor_s": spread(floors_s),
        "parse_ms": spread(parse_ms),
        "import_s": _over(runs["ours"], lambda one: one.run.import_s),
        "imports_s": {arm: _over(runs[arm], lambda one: one.run.import_s) for arm in runs},
        "cpu_s": {arm: _over(runs[arm], lambda one: one.run.cpu_s) for arm in runs},
        "server_cpu_s": {arm: _over(runs[arm], lambda one: one.server_cpu_s) for arm in runs},
        "requests": requests,
        "charts": {arm: max((one.charts for one in runs[arm]), default=None) for arm in runs},
        "rendered": sum(one.stats["rendered"] for own in runs.values() for one in own),
        "lost": {arm: sorted({ticker for one in runs[arm] for ticker in one.run.outcome.lost}) for arm in runs},
        "rows": max((one.run.outcome.rows for one in runs["ours"]), default=None),
        "sequences": max((one.run.outcome.counts["sequences"] for one in runs["original"]), default=None),
    }
    for arm in ("naive", "original"):
        figures[f"{arm}_download_s"] = _over(runs[arm], lambda one: one.run.outcome.parts_s["download"])
        for part in ("", "_download"):
            figures[f"speedup_over_{arm}{part}"] = ratio(figures[f"{arm}{part}_s"], figures["ours_s"])
    ours = runs["ours"]
    return figures | {
        "ratio_to_floor": ratio(figures["ours_s"], figures["floor_s"]),
        "peak_in_flight": max((one.stats["peak_in_flight"] for one in ours), default=None),
        "cpu_ms_per_response": _over(ours, lambda one: one.run.cpu_s * 1000 / max(1, one.charts)),
        "peak_rss_mib": max((round(one.run.peak_rss_mib, 1) for one in ours), default=None),
        "cost_per_ticker_ms": _over(ours, lambda one: one.run.wall_s * 1000 / options.tickers),
        "cost_per_ticker_of_100_ms": _over(runs[FEW], lambda one: one.run.wall_s * 1000 / 100),
    }


def scaling_figures(by_workers: Mapping[int, Sequence[Measured]], latency_ms: float) -> dict[str, Any]:
    """Strong scaling: the same work by more worker processes.

    wall_s is all of it; start_s until the first request has come, workers' interpreters and imports; fetch_s from
    there to the last answer, by which speed-ups are reckoned; store_s the rest.
    """
    found: dict[str, Any] = {}
    one_worker_s: float | None = None
    for count in sorted(by_workers):
        runs = by_workers[count]
        first_s = [one.stats["first_chart_s"] - latency_ms / 1000 for one in runs]
        fetch = spread([one.stats["last_chart_s"] - at for one, at in zip(runs, first_s, strict=True)])
        wall = spread([one.run.wall_s for one in runs])
        if fetch is None or wall is None:
            continue
        one_worker_s = one_worker_s or fetch["median"] * count
        speedup = one_worker_s / fetch["median"]
        found[str(count)] = {
            "wall_s": wall,
            "start_s": spread([at - one.run.begun_s for one, at in zip(runs, first_s, strict=True)]),
            "fetch_s": fetch,
            "store_s": spread([one.run.ended_s - one.stats["last_chart_s"] for one in runs]),
            "speedup": round(speedup, 3),
            "efficiency": round(speedup / count, 3),
        }
    return found


def rate_figures(one: Measured, rate_per_s: float) -> dict[str, Any]:
    """What one run got out of a server that enforces a rate: a bucket that holds one second's worth, full at first.

    sustained_share is of the answers without what the bucket held at first, and None when the run was too short to
    tell the rate from that.
    """
    answered = one.stats["statuses"].get("200", 0)
    took_s = one.stats["last_chart_s"] - one.stats["first_chart_s"]
    return {
        "sustained_per_s": round(one.answered_per_s, 3),
        "sustained_share": round((answered - rate_per_s) / took_s / rate_per_s, 4)
        if answered >= _LONG_S * rate_per_s
        else None,
        "share_with_burst": round(answered / took_s / rate_per_s, 4) if took_s else None,
        "answered": answered,
        "answers_429": one.stats["statuses"].get("429", 0),
        "rate_limited": one.run.outcome.counts["rate_limited"],
        "tickers_lost": len(one.run.outcome.lost),
        "wall_s": round(one.run.wall_s, 3),
    }


def fault_figures(one: Measured, share: float, asked: int, plain: Outcome) -> dict[str, Any]:
    """Whether the bars stayed the same where a share of the answers failed, and whether each request was counted.

    asked: requests without which nothing would be known; retries and second looks come on top. plain: of a server
    that did not fail.
    """
    counts = one.run.outcome.counts
    return {
        "share": share,
        "same_bars": not (one.run.outcome.lost or differing(one.run.outcome, plain)),
        "faults": one.stats["faults"],
        "must_be_retried": one.failures,
        "retries": counts["retries"],
        "repeated_by_curl": one.unseen,
        "must_be_verified": one.stats["faults"].get(_SHORT, 0),
        "verified": counts["verified"],
        "asked": asked,
        "requests": counts["requests"],
        "server_requests": one.charts,
        "wall_s": round(one.run.wall_s, 3),
    }


def differing(outcome: Outcome, reference: Outcome) -> list[str]:
    """The outcome's tickers whose bars are not those of the reference, bit for bit."""
    return [ticker for ticker, own in outcome.digests.items() if own != reference.digests.get(ticker)]


def _over(runs: Sequence[Measured], figure: Callable[[Measured], float]) -> Spread | None:
    return spread([figure(one) for one in runs])

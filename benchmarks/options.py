"""What the benchmark measures, from its command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.errors import SettingsError
from app.options import counts, words

ARMS = ("naive", "original", "ours", "ours_stored", "yfinance_client")
MOST_DAYS = 22
"""Sessions within the 30 days that Yahoo keeps."""


@dataclass(frozen=True)
class Options:
    """What to measure. rate_per_s and fault_share: 0 leaves that part out; workers: empty likewise."""

    tickers: int = 100
    days: int = 5
    latency_ms: float = 150.0
    rate_per_s: float = 50.0
    in_flight: int = 50
    rounds: int = 3
    fault_share: float = 0.05
    arms: tuple[str, ...] = ARMS
    workers: tuple[int, ...] = (1, 2, 4, 8)
    folder: Path = Path("build/bench")

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if min(self.tickers, self.days, self.in_flight, self.rounds, *self.workers, 1) < 1:
            raise SettingsError("tickers, days, in flight, rounds and workers must be at least 1")
        if self.days > MOST_DAYS:
            raise SettingsError(f"{self.days} days: Yahoo keeps minutes for 30 days, which hold {MOST_DAYS} sessions")
        if min(self.latency_ms, self.rate_per_s) < 0 or not 0 <= self.fault_share < 1:
            raise SettingsError("latency and rate must not be negative, and the share of faults must be within 0..1")
        if unknown := [arm for arm in self.arms if arm not in ARMS]:
            raise SettingsError(f"unknown arms {', '.join(unknown)}: there are {', '.join(ARMS)}")

    def to_json(self) -> dict[str, Any]:
        """As stored."""
        return {**asdict(self), "folder": str(self.folder)}


def read_options(arguments: Sequence[str] | None) -> Options:
    """The command line's; SettingsError for a value that makes no sense."""
    default = Options()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description="Time the ingest against others.")
    add = parser.add_argument
    add("--tickers", type=int, default=default.tickers, help="of the simulated market")
    add("--days", type=int, default=default.days, help=f"its sessions, at most {MOST_DAYS}")
    add("--latency-ms", type=float, default=default.latency_ms, help="time before each answer")
    add("--rate", type=float, default=default.rate_per_s, help="requests a second that a server lets through; 0: none")
    add("--in-flight", type=int, default=default.in_flight, help="requests that our worker has on their way")
    add("--rounds", type=int, default=default.rounds, help="of all arms")
    add("--faults", type=float, default=default.fault_share, help="share of answers that fail; 0: no such arm")
    add("--arms", default=",".join(ARMS), help="the arms to time, of %(default)s")
    add("--workers", default="1,2,4,8", help="worker processes to scale over; empty: none")
    add("--folder", type=Path, default=default.folder, help="where the results go")
    found = parser.parse_args(arguments)
    return Options(
        tickers=found.tickers,
        days=found.days,
        latency_ms=found.latency_ms,
        rate_per_s=found.rate,
        in_flight=found.in_flight,
        rounds=found.rounds,
        fault_share=found.faults,
        arms=words(found.arms),
        workers=counts(found.workers, "workers"),
        folder=found.folder,
    )

"""The ingest plan: which worker fetches which tickers, in which requests.

A Lambda makes it too: nothing but the standard library and boto3 is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

from app import contract
from app.errors import UniverseError
from app.sessions import Session
from app.storage import Bucket, fingerprint


@dataclass(frozen=True)
class Shard:
    """A part of the universe. Its name tells its tickers apart, so that two universes never share a key."""

    name: str
    tickers: tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """One request: whole sessions, from the first one's open to the last one's close (epoch seconds)."""

    start_ts: int
    end_ts: int


@dataclass(frozen=True)
class Plan:
    """All that the workers of one run need to know. workers: shards that are fetched at the same time, at most."""

    run_id: str
    sessions: tuple[Session, ...]
    spans: tuple[Span, ...]
    shards: tuple[Shard, ...]
    workers: int

    @property
    def tickers(self) -> tuple[str, ...]:
        """The universe, sorted."""
        return tuple(sorted(ticker for shard in self.shards for ticker in shard.tickers))

    @property
    def closed_days(self) -> tuple[str, ...]:
        """The days between the first session and the last on which the exchange was closed, ISO, ascending."""
        first, last = self.sessions[0].day, self.sessions[-1].day
        open_days = {session.day for session in self.sessions}
        days = (first + timedelta(days=n) for n in range((last - first).days))
        return tuple(day.isoformat() for day in days if day not in open_days)

    def to_json(self) -> dict[str, Any]:
        """As stored under contract.plan_key."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        """The inverse of to_json."""
        return cls(
            run_id=value["run_id"],
            sessions=tuple(
                Session(date.fromisoformat(s["day"]), s["open_ts"], s["minutes"]) for s in value["sessions"]
            ),
            spans=tuple(Span(**span) for span in value["spans"]),
            shards=tuple(Shard(s["name"], tuple(s["tickers"])) for s in value["shards"]),
            workers=value["workers"],
        )


def write_plan(
    run_id: str,
    universe: Sequence[str],
    market: Bucket,
    sessions: Sequence[Session],
    *,
    shards: int,
    request_days: int,
    at_once: int = 0,
) -> Plan:
    """Plan the run and store the plan; arguments and errors as `make_plan`."""
    plan = make_plan(run_id, universe, sessions, shards=shards, request_days=request_days, at_once=at_once)
    market.put_json(contract.plan_key(run_id), plan.to_json())
    return plan


def read_plan(run_id: str, market: Bucket) -> Plan:
    """The stored plan of a run."""
    return Plan.from_json(market.get_json(contract.plan_key(run_id)))


def make_plan(
    run_id: str,
    universe: Sequence[str],
    sessions: Sequence[Session],
    *,
    shards: int,
    request_days: int,
    at_once: int = 0,
) -> Plan:
    """Deal the universe to at most `shards` shards and cut the sessions into requests.

    request_days: calendar days that one request may span (Yahoo: 7). at_once: shards that there is room for at the
    same time, which share the budget of requests; 0 is for all of them.
    Raises UniverseError when there is no ticker or no session to fetch.
    """
    if not universe:
        raise UniverseError("the universe is empty: name at least one ticker")
    if not sessions:
        raise UniverseError("no trading session in the asked days: raise ingest.days")
    count = min(shards, len(universe))
    parts = [tuple(universe[i::count]) for i in range(count)]
    return Plan(
        run_id=run_id,
        sessions=tuple(sessions),
        spans=cut_spans(sessions, request_days),
        shards=tuple(Shard(_shard_name(i, count, part), part) for i, part in enumerate(parts)),
        workers=min(count, at_once or count),
    )


def cut_spans(sessions: Sequence[Session], request_days: int) -> tuple[Span, ...]:
    """The fewest requests of whole sessions, none longer than `request_days` calendar days."""
    spans: list[Span] = []
    first = sessions[0]
    last = first
    for session in sessions[1:]:
        if session.day - first.day >= timedelta(days=request_days):
            spans.append(Span(first.open_ts, last.close_ts))
            first = session
        last = session
    return (*spans, Span(first.open_ts, last.close_ts))


def _shard_name(index: int, count: int, tickers: Sequence[str]) -> str:
    return f"{index:04d}-of-{count:04d}-{fingerprint(','.join(tickers).encode())[:8]}"

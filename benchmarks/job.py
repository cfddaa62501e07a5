"""What the benchmark hands to an arm and gets back: plain JSON, for each arm runs in an interpreter of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Job:
    """One arm's work: these tickers in these sessions, from this server.

    now: the instant at which the server stands, ISO 8601. sessions: (New York day, open in epoch seconds, minutes).
    requests: (first day, day after the last one), as yfinance counts days, each of at most 7. ingest: settings of that
    group. bucket: where bars are stored, by the arms that do.
    """

    arm: str
    url: str
    now: str
    tickers: tuple[str, ...]
    sessions: tuple[tuple[str, int, int], ...]
    requests: tuple[tuple[str, str], ...]
    ingest: Mapping[str, Any]
    bucket: str = ""

    def to_json(self) -> str:
        """The inverse of from_json."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """As written by to_json."""
        value = json.loads(text)
        return cls(
            **{
                **value,
                "tickers": tuple(value["tickers"]),
                "sessions": tuple((day, open_ts, minutes) for day, open_ts, minutes in value["sessions"]),
                "requests": tuple((first, end) for first, end in value["requests"]),
            }
        )


@dataclass(frozen=True)
class Outcome:
    """What came of an arm's work.

    rows: bars. digests: of them by ticker, none where the arm does not hold them. lost: tickers without bars.
    parts_s: seconds of its parts, by name. counts: what it counted itself, by name.
    """

    rows: int = 0
    digests: Mapping[str, str] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    parts_s: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """An arm that has run, with what it cost.

    begun_s and ended_s are readings of this machine's monotonic clock; cpu_s counts ended children too; peak_rss_mib
    is of the arm's own process, imports included.
    """

    outcome: Outcome
    import_s: float
    begun_s: float
    ended_s: float
    cpu_s: float
    peak_rss_mib: float

    @property
    def wall_s(self) -> float:
        """Seconds of the work, without the imports."""
        return self.ended_s - self.begun_s

    def to_json(self) -> str:
        """The inverse of from_json."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Run:
        """As written by to_json."""
        value = json.loads(text)
        outcome = value.pop("outcome")
        return cls(Outcome(**{**outcome, "lost": tuple(outcome["lost"])}), **value)


def digest(columns: Iterable[bytes]) -> str:
    """One text for all bars of a ticker, equal if and only if they are bit for bit the same.

    columns: the bytes of ts (epoch seconds), open, high, low, close (float64) and volume; else int64.
    """
    whole = hashlib.sha256()
    for column in columns:
        whole.update(column)
    return whole.hexdigest()

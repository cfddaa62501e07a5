"""How tickers and days of an ingest ended: read from what its workers say and from its coverage, told in few lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from embedded.execution import Execution

COMPLETE, PARTIAL, DELISTED, FAILED, CLOSED = "complete", "partial", "delisted", "failed", "empty-by-calendar"
_ORDER = (COMPLETE, PARTIAL, DELISTED, FAILED, CLOSED)
_WORST_FIRST = (FAILED, DELISTED, PARTIAL)
_FATE = re.compile(rf"^ingest: (\S+) ({'|'.join(_WORST_FIRST)}): (.+)$")
_COUNT = re.compile(rf"(\d[\d,]*) ({'|'.join(_ORDER)})")
_LONGEST = 120
_DAYS_SHOWN = 10
_TICKERS_SHOWN = 10


class Fate(NamedTuple):
    """Why a ticker is not complete. why: what it lacks, or Yahoo's words, or the last error."""

    ticker: str
    status: str
    why: str

    def __str__(self) -> str:
        """In a line."""
        return _cut(f"{self.ticker} {self.status}: {self.why}" if self.why else f"{self.ticker} {self.status}")


def read_fate(line: str) -> Fate | None:
    """What a line of a worker says of a ticker, if it does."""
    found = _FATE.match(line)
    return Fate(*found.groups()) if found else None


def worst_first(fates: Iterable[Fate]) -> list[Fate]:
    """Failed ones, then delisted ones, then those that lack bars."""
    return sorted(fates, key=lambda fate: (_WORST_FIRST.index(fate.status), fate.ticker))


def read_note(note: str) -> tuple[str, Counter[str]]:
    """What a progress note counts, and how many of it ended how: tickers, {complete: 18, failed: 1}."""
    unit, _, counts = note.partition(": ")
    found = {status: int(number.replace(",", "")) for number, status in _COUNT.findall(counts)}
    return unit if found else note, Counter(found)


def say(counts: Mapping[str, int]) -> str:
    """Counts by status: 18 complete, 1 failed."""
    return ", ".join(f"{counts[status]:,} {status}" for status in _ORDER if counts.get(status))


def coverage_run(execution: Execution) -> str | None:
    """The run whose coverage the execution has joined; None before that."""
    joined = [state for state in execution.states if state.name == "CheckCoverage" and "Payload" in state.parameters]
    return str(joined[-1].parameters["Payload"]["run_id"]) if joined else None


def coverage_lines(coverage: Mapping[str, Any]) -> list[str]:
    """A run's coverage for people: days and tickers that are complete are counted, others are told."""
    days = len(coverage["days"])
    first = f"coverage: {coverage['requested']} tickers x {days} sessions: {say(coverage['statuses'])}"
    return [first, *_day_lines(coverage["by_day"]), *_ticker_lines(coverage["tickers"], coverage["days"])]


def _day_lines(by_day: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A day is told when tickers lack some of it; one that Yahoo does not know lacks all days alike."""
    told = {day: counts for day, counts in by_day.items() if counts.get(PARTIAL) or counts.get(FAILED)}
    closed = sum(bool(counts.get(CLOSED)) for counts in by_day.values())
    summed = {COMPLETE: len(by_day) - len(told) - closed, CLOSED: closed}
    lines = [f"  {day}: {say(counts)}" for day, counts in sorted(told.items())]
    return [f"days: {say(summed) or 'none complete'}", *_capped(lines, _DAYS_SHOWN, "days")]


def _ticker_lines(tickers: Sequence[Mapping[str, Any]], days: Sequence[str]) -> list[str]:
    fates = [_fate(ticker, days) for ticker in tickers if ticker["status"] != COMPLETE]
    return _capped([f"  {fate}" for fate in worst_first(fates)], _TICKERS_SHOWN, "tickers")


def _fate(ticker: Mapping[str, Any], days: Sequence[str]) -> Fate:
    name, error = str(ticker["ticker"]), str(ticker["error"])
    return Fate(name, str(ticker["status"]), error.removeprefix(f"{name}: ") or _lacking(ticker, days))


def _lacking(ticker: Mapping[str, Any], days: Sequence[str]) -> str:
    """How many minutes its days lack that are not complete: days in a row are told together."""
    statuses, missing = ticker["days"], ticker["missing"]
    runs = [list(run) for whole, run in groupby(days, lambda day: statuses.get(day, COMPLETE) == COMPLETE) if not whole]
    return "; ".join(
        f"{run[0] if len(run) == 1 else f'{run[0]} to {run[-1]}'} lacks {sum(missing[day] for day in run):,} minutes"
        for run in runs
    )


def _capped(lines: Sequence[str], most: int, noun: str) -> list[str]:
    more = [f"  {len(lines) - most} more {noun}: coverage.json"] if len(lines) > most else []
    return [*lines[:most], *more]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."

"""What each ticker of a shard got, and why not: the lines of its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from app.ingest.answers import DayAnswer
from app.ingest.counts import FetchCount
from app.ingest.minutes import held_from_text
from app.sessions import Session

Status = Literal["complete", "partial", "delisted", "failed"]
CLOSED = "empty-by-calendar"
"""The status of a day without a session."""
_DAYS_SAID = 3
_GAPS_SAID = 5


@dataclass
class TickerReport:
    """What one ticker got of the plan's days.

    A day is complete: at least `complete_share` of its session's minutes have a bar; partial: less, `missing` says
    how many minutes have none and, from the first bar's day on, `gaps` which, counted from the open; delisted:
    Yahoo says that it knows no such symbol; failed: `error` is the last one; or CLOSED. The ticker's status is that
    of its worst day; days before its first bar do not count unless it has none at all, since Yahoo may not reach
    back so far.
    rows: bars of the plan's sessions; `held` of them lay in S3 before. faults: rows that were left out or put right,
    see app.ingest.screening.Screened.
    """

    ticker: str
    status: Status
    rows: int = 0
    held: int = 0
    days: dict[str, str] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    gaps: dict[str, str] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    error: str = ""
    fetch: FetchCount = field(default_factory=FetchCount)

    def to_json(self) -> dict[str, Any]:
        """As stored in the manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TickerReport:
        """The inverse of to_json."""
        return cls(**{**value, "fetch": FetchCount(**value["fetch"])})

    def sentence(self) -> str:
        """What there is to say about a ticker that is not complete, in one line."""
        if self.status != "partial":
            return f"{self.ticker} {self.status}: {self.error.removeprefix(f'{self.ticker}: ')}"
        if not self.rows:
            return f"{self.ticker} partial: Yahoo knows it and has no bar of these days"
        short = sorted(self.gaps)
        said = [f"{day} lacks {self.missing[day]} minutes ({_cut(self.gaps[day])})" for day in short[-_DAYS_SAID:]]
        more = f" and {len(short) - len(said)} days more" if len(short) > len(said) else ""
        return f"{self.ticker} partial: {'; '.join(said)}{more}"


def make_report(
    ticker: str,
    sessions: Sequence[Session],
    closed_days: Sequence[str],
    answers: Mapping[Any, DayAnswer],
    errors: Mapping[Any, tuple[Status, str]],
    complete_share: float,
    count: FetchCount,
) -> TickerReport:
    """The report of a ticker from what is held of each day and what went wrong with a day's request, if it did."""
    report = TickerReport(ticker, "complete", fetch=count)
    statuses: list[Status] = []
    for session in sessions:
        day = session.day.isoformat()
        answer = answers.get(session.day)
        held = held_from_text(answer.missing, session.minutes) if answer else None
        rows = int(held.sum()) if held is not None else 0
        report.rows += rows
        if rows < session.minutes:
            report.missing[day] = session.minutes - rows
        if rows >= complete_share * session.minutes:
            status: Status = "complete"
        elif session.day in errors:
            status, report.error = errors[session.day]
        else:
            status = "partial"
            if report.rows:
                report.gaps[day] = answer.missing if answer else f"0-{session.minutes - 1}"
        report.days[day] = status
        if report.rows or status != "partial":
            statuses.append(status)
    report.days = dict(sorted([*report.days.items(), *((day, CLOSED) for day in closed_days)]))
    worst: tuple[Status, ...] = ("failed", "delisted", "partial", "complete")
    report.status = next((status for status in worst if status in statuses), "partial")
    return report


def _cut(gaps: str) -> str:
    runs = gaps.split(",")
    return ",".join(runs[:_GAPS_SAID]) + (f" and {len(runs) - _GAPS_SAID} more" if len(runs) > _GAPS_SAID else "")

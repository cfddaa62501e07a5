"""What earlier runs were answered: the reason not to ask again.

Beside each part of a day's bars lies what Yahoo answered about them. A day is asked for again until its answer is
settled: got after the close, and whole; or short for good, as two answers said a day later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any

from app import contract
from app.errors import ObjectMissing
from app.ingest.minutes import held_from_text, missing_text
from app.sessions import Session
from app.storage import Bucket, to_json

_SETTLED_AFTER_S = 15 * 60
"""Bars are final so long after the close; Yahoo's quotes are up to 15 minutes late."""
_SHORT_FOR_GOOD_AFTER_S = 24 * 3600
"""What is still missing a day after the close is not expected any more."""
_READERS = 8


@dataclass(frozen=True)
class DayAnswer:
    """What was answered about one ticker's session.

    asked_ts: epoch seconds of the last request. sure: it was whole, or two answers agreed. missing: the minutes
    without a bar, see app.ingest.minutes.
    """

    asked_ts: int
    sure: bool
    missing: str

    def settles(self, session: Session, complete_share: float) -> bool:
        """Whether there is nothing more to be had by asking again."""
        whole = held_from_text(self.missing, session.minutes).mean() >= complete_share
        after_s = _SETTLED_AFTER_S if whole else _SHORT_FOR_GOOD_AFTER_S
        return self.sure and self.asked_ts >= session.close_ts + after_s

    def joined(self, later: DayAnswer, minutes: int) -> DayAnswer:
        """Both: the bars of either are held; the later one says how sure that is. minutes: of the session."""
        held = held_from_text(self.missing, minutes) | held_from_text(later.missing, minutes)
        newest = later if later.asked_ts >= self.asked_ts else self
        return DayAnswer(newest.asked_ts, newest.sure, missing_text(held))


Answers = Mapping[str, Mapping[date, DayAnswer]]
"""By ticker and day."""


def read_answers(
    market: Bucket, sessions: Sequence[Session], tickers: Iterable[str]
) -> dict[str, dict[date, DayAnswer]]:
    """What is stored about these sessions and tickers; an answer whose bars are gone counts for nothing."""
    wanted = frozenset(tickers)
    days = {session.day: session for session in sessions}
    first, last = min(days), max(days)
    with_bars = {
        (info.key.split("/")[1], contract.part_of(info.key))
        for info in market.objects(contract.BARS_PREFIX, contract.bars_day_prefix(first))
    }
    keys = []
    for info in market.objects(contract.ANSWERS_PREFIX, contract.answers_day_prefix(first)):
        day = date.fromisoformat(info.key.split("/")[1].removeprefix("dt="))
        if day > last:
            break
        if day in days:
            keys.append((day, info.key))
    found: dict[str, dict[date, DayAnswer]] = defaultdict(dict)
    with ThreadPoolExecutor(_READERS) as pool:
        read = pool.map(lambda day_key: read_part(market, day_key[1]), keys)
        for (day, key), part in zip(keys, read, strict=True):
            minutes = days[day].minutes
            stored = (f"dt={day.isoformat()}", contract.part_of(key)) in with_bars
            for ticker, answer in backed(part, minutes, with_bars=stored).items():
                if ticker in wanted:
                    known = found[ticker].get(day)
                    found[ticker][day] = known.joined(answer, minutes) if known else answer
    return dict(found)


def read_part(market: Bucket, key: str) -> dict[str, DayAnswer]:
    """The answers of one stored part; none when it is gone, merged into another."""
    try:
        return answers_of(market.get_json(key))
    except ObjectMissing:
        return {}


def answers_of(stored: Mapping[str, Sequence[Any]]) -> dict[str, DayAnswer]:
    """The inverse of part_body, of its parsed JSON."""
    return {
        ticker: DayAnswer(int(asked), bool(sure), str(missing)) for ticker, (asked, sure, missing) in stored.items()
    }


def backed(answers: Mapping[str, DayAnswer], minutes: int, *, with_bars: bool) -> dict[str, DayAnswer]:
    """The answers of a part that count: without its bars those alone that hold none. minutes: of the session."""
    return {
        ticker: answer
        for ticker, answer in answers.items()
        if with_bars or not held_from_text(answer.missing, minutes).any()
    }


def joined_by_day(
    earlier: Mapping[date, DayAnswer], later: Mapping[date, DayAnswer], minutes: Mapping[date, int]
) -> dict[date, DayAnswer]:
    """Both, of one ticker. minutes: of each day's session; other days count for nothing."""
    joined = {day: answer for day, answer in earlier.items() if day in minutes}
    for day, answer in later.items():
        if day in minutes:
            joined[day] = joined[day].joined(answer, minutes[day]) if day in joined else answer
    return joined


def join_parts(parts: Iterable[Mapping[str, DayAnswer]], minutes: int) -> dict[str, DayAnswer]:
    """The answers of several parts of one day; minutes: of its session."""
    joined: dict[str, DayAnswer] = {}
    for part in parts:
        for ticker, answer in part.items():
            joined[ticker] = joined[ticker].joined(answer, minutes) if ticker in joined else answer
    return joined


def part_body(answers: Mapping[str, DayAnswer]) -> bytes:
    """What is stored of the answers of one part; read by read_part."""
    lines = {
        ticker: [answers[ticker].asked_ts, int(answers[ticker].sure), answers[ticker].missing]
        for ticker in sorted(answers)
    }
    return to_json(lines)

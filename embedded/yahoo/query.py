"""Yahoo's chart requests: their parameters, their limits and the words in which Yahoo refuses them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from app import contract
from app.sessions import Session

INTERVALS: Final = ("1m", "1d")
MAX_SPAN_S: Final = 8 * 86_400
"""Longest 1-minute request that Yahoo answers."""
MAX_AGE_S: Final = 30 * 86_400
"""Yahoo keeps 1-minute bars so long."""
PRE_MARKET_S: Final = 19_800
"""Pre-market opens at 04:00, five and a half hours before the session."""

_SESSIONS = {"1d": 1, "5d": 5}
_CALENDAR_DAYS = {"1mo": 31, "3mo": 92, "6mo": 184, "1y": 366, "2y": 731, "5y": 1827, "10y": 3653}
VALID_RANGES: Final = (*_SESSIONS, *_CALENDAR_DAYS, "ytd", "max")

_EPOCH_S = re.compile(r"-?\d{1,11}")


class ChartError(Exception):
    """An answer of Yahoo that is no chart: its HTTP status, code and description."""

    def __init__(self, status: int, code: str, description: str) -> None:
        """The status is HTTP's, the code and the description are Yahoo's words."""
        super().__init__(description)
        self.status = status
        self.code = code

    def body(self) -> bytes:
        """The answer's JSON."""
        return json.dumps({"chart": {"result": None, "error": {"code": self.code, "description": str(self)}}}).encode()


@dataclass(frozen=True)
class ChartQuery:
    """A chart request: either `range` or both `period1_s` and `period2_s` (UTC epoch seconds)."""

    interval: str
    range: str = ""
    period1_s: int = 0
    period2_s: int = 0
    pre_post: bool = False

    @property
    def span(self) -> str:
        """The request's range as one text."""
        return f"{self.interval}:{self.range or f'{self.period1_s}-{self.period2_s}'}"

    def bounds_s(self, begun: Sequence[Session], now_s: int) -> tuple[int, int]:
        """Start and end of the range in UTC epoch seconds; `begun` are the sessions so far.

        Raises ChartError 422 for the 1-minute ranges that Yahoo refuses.
        """
        start_s, end_s = (_since(self.range, begun, now_s), now_s) if self.range else (self.period1_s, self.period2_s)
        if self.interval == "1m":
            wanted = f"1m data not available for startTime={start_s} and endTime={end_s}."
            if end_s - start_s > MAX_SPAN_S and self.range not in _SESSIONS:
                limit = "Only 8 days worth of 1m granularity data are allowed to be fetched per request."
                raise ChartError(422, "Unprocessable Entity", f"{wanted} {limit}")
            if start_s < now_s - MAX_AGE_S:
                raise ChartError(
                    422, "Unprocessable Entity", f"{wanted} The requested range must be within the last 30 days."
                )
        return start_s, end_s


def parse_query(params: Mapping[str, str]) -> ChartQuery:
    """Read a request's parameters; ChartError 400 for a wrong one. Unknown ones are ignored, as Yahoo does."""
    interval = params.get("interval", "1d")
    if interval not in INTERVALS:
        raise _bad(f"Invalid input - interval={interval} is not supported. Valid intervals: [{', '.join(INTERVALS)}]")
    pre_post = params.get("includePrePost", "false").lower() == "true"
    if "period1" not in params and "period2" not in params:
        span = params.get("range", "1d")
        if span not in VALID_RANGES:
            raise _bad(f"Invalid input - range={span} is not supported. Valid ranges: [{', '.join(VALID_RANGES)}]")
        return ChartQuery(interval, range=span, pre_post=pre_post)
    period = [params.get(name, "") for name in ("period1", "period2")]
    for name, text in zip(("period1", "period2"), period, strict=True):
        if not _EPOCH_S.fullmatch(text):
            raise _bad(f"Invalid input - {name}={text} is not a number of seconds since 1970")
    start, end = (int(text) for text in period)
    if start > end:
        raise _bad(f"Invalid input - start date cannot be after end date. startDate = {start}, endDate = {end}")
    return ChartQuery(interval, period1_s=start, period2_s=end, pre_post=pre_post)


def _bad(description: str) -> ChartError:
    return ChartError(400, "Bad Request", description)


def _since(span: str, begun: Sequence[Session], now_s: int) -> int:
    """Start of a named range; days are sessions where Yahoo counts sessions: on a Sunday 1d is Friday."""
    if not begun:
        return now_s
    if span in _SESSIONS:
        return begun[-_SESSIONS[span] :][0].open_ts - PRE_MARKET_S
    if span in _CALENDAR_DAYS:
        return now_s - 86_400 * _CALENDAR_DAYS[span]
    if span == "ytd":
        local = datetime.fromtimestamp(now_s, UTC).astimezone(ZoneInfo(contract.EXCHANGE_TIMEZONE))
        return int(local.replace(month=1, day=1, hour=0, minute=0, second=0).timestamp())
    return begun[0].open_ts - PRE_MARKET_S

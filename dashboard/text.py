"""Numbers and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from app import contract

NONE = "\N{EN DASH}"
"""What is not known."""


def seconds(value: float | None) -> str:
    """12.3 s, 4 min 05 s, 2 h 07 min."""
    if value is None:
        return NONE
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def bp(value: float | None, *, signed: bool = False) -> str:
    """Basis points."""
    return NONE if value is None else f"{value:{'+' if signed else ''}.2f} bp"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return NONE if value is None else f"{100 * value:.{digits}f} %"


def skill(value: float | None) -> str:
    """1 - MSE / MSE of persistence."""
    return NONE if value is None else f"{value:+.4f}"


def usd(value: float) -> str:
    """A price."""
    return f"{value:,.2f}"


def instant(text: str) -> str:
    """An ISO 8601 instant, to the minute, in UTC."""
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M}" if text else NONE


def exchange_minute(time: Any) -> str:
    """A UTC time without a zone as New York's clocks show it."""
    aware = datetime.fromisoformat(str(time)[:19]).replace(tzinfo=UTC)
    return f"{aware.astimezone(ZoneInfo(contract.EXCHANGE_TIMEZONE)):%Y-%m-%d %H:%M}"

"""One bar as one record of a stream: a JSON object of the stream's columns, but for poll and model_id."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

_NUMBERS: Final = ("open", "high", "low", "close", "volume", "market_return")
_SCHEMA: Final = pa.schema(
    [
        ("ticker", pa.string()),
        ("ts", pa.int64()),
        *((name, pa.float64()) for name in _NUMBERS),
        ("poll", pa.int64()),
    ]
)
_LONGEST_TICKER: Final = 32
_NO_TICK: Final = ("", 0, *[math.nan] * len(_NUMBERS))
"""What stands for a record that is none: app.serving.ticks.screen skips it, and counts it."""


def record_of(tick: Mapping[str, Any]) -> bytes:
    """A row of app.serving.ticks.columns_of; its numbers are read again to the last bit, what is none as null."""
    numbers = {name: tick[name] if math.isfinite(tick[name]) else None for name in _NUMBERS}
    return json.dumps({"ticker": tick["ticker"], "ts": tick["ts"], **numbers}, separators=(",", ":")).encode()


def columns_from(records: Sequence[bytes], first_poll: int) -> pa.Table:
    """The records in the stream's columns, in their order, each a poll of its own.

    A record that is not a tick becomes a row without ticker and prices, so that it is counted as skipped.
    """
    ticks = [_values(record) or _NO_TICK for record in records]
    columns = [*(list(column) for column in zip(*ticks, strict=True))] or [[] for _ in _NO_TICK]
    poll = np.arange(first_poll, first_poll + len(ticks), dtype=np.int64)
    return pa.table([*columns, poll], schema=_SCHEMA)


def _values(record: bytes) -> tuple[str | float, ...] | None:
    try:
        tick = json.loads(record)
        ticker, ts, numbers = tick["ticker"], tick["ts"], [tick[name] for name in _NUMBERS]
        values = [float(number) for number in numbers]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    # float() takes text too, and a bool is an int: what is asked for is a number of JSON.
    right = type(ticker) is str and type(ts) is int and all(type(number) in (int, float) for number in numbers)
    named = right and 0 < len(ticker) <= _LONGEST_TICKER and ticker.isascii()
    return (ticker, ts, *values) if named and abs(ts) < 2**62 else None

"""Where a feed's polls are written, one after another: the same for a replay, the running market and a socket."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

import pyarrow as pa

from app import contract
from app.errors import ObjectChanged, ServingError
from app.ingest.bars import bar_starts, empty_bars, get_bars, latest_bars
from app.serving.kinesis import connect_kinesis, later, put_ticks
from app.serving.ticks import columns_of
from app.settings import ServingSettings
from app.storage import Bucket
from app.tables import put_table


class TickWriter(Protocol):
    """Takes the polls of one run's session."""

    def resume(self) -> pa.Table:
        """Go on after what an earlier process of this feed has written; returns those bars, the last copy of each."""

    def put(self, bars: pa.Table, revised: int = 0) -> None:
        """Write the bars (contract.BARS) of one poll, at least one. revised: how many replace one of before."""

    def end(self, **more: Any) -> dict[str, Any]:
        """Store what was written, and `more`, as the end of the feed; returns it: where it ends and see _Counted."""


class TickObjects:
    """Writes each poll as one object of the market bucket. The keys ascend, whatever minutes the bars are of.

    It writes new objects only: ServingError when another feed of the run is at work beside it.
    """

    def __init__(self, market: Bucket, run_id: str, day: date) -> None:
        self._market, self._run_id = market, run_id
        self._day, self._counted = day, _Counted(day)
        self._last_key, self._newest_ms = "", 0

    def resume(self) -> pa.Table:
        """As TickWriter.resume."""
        keys = self._market.keys(contract.ticks_day_prefix(self._run_id, self._day))
        if not keys:
            return empty_bars()
        tables = [get_bars(self._market, key) for key in keys]
        bars = latest_bars(tables)
        self._last_key = keys[-1]
        self._newest_ms, seq = contract.ticks_place(keys[-1])
        rows = sum(len(table) for table in tables)
        self._counted = _Counted(self._day, seq + 1, len(bars), rows - len(bars))
        return bars

    def put(self, bars: pa.Table, revised: int = 0) -> None:
        """As TickWriter.put."""
        # A poll of revised bars alone would otherwise sort before what the stream has read already.
        self._newest_ms = max(self._newest_ms, int(bar_starts(bars).max()) * 1000)
        self._last_key = contract.ticks_key(self._run_id, self._day, self._newest_ms, self._counted.polls)
        try:
            put_table(self._market, self._last_key, bars, replaces="")
        except ObjectChanged:
            if get_bars(self._market, self._last_key) != bars:  # else it was we: S3's answer was lost
                raise ServingError(
                    f"another feed of run {self._run_id} is at work: it has written {self._last_key}: stop one of them"
                ) from None
        self._counted.add(len(bars), revised)

    def end(self, **more: Any) -> dict[str, Any]:
        """As TickWriter.end."""
        end = {"last_key": self._last_key, **self._counted.to_json(), **more}
        self._market.put_json(contract.feed_end_key(self._run_id), end)
        return end


class TickRecords:
    """Writes each bar as one record of a Kinesis stream.

    Records are not read back: a feed that starts again writes the session's bars again, and the stream counts them as
    late or duplicate.
    """

    def __init__(self, market: Bucket, stream: str, run_id: str, day: date, client: Any = None) -> None:
        self._market, self._stream, self._run_id = market, stream, run_id
        self._client = client if client is not None else connect_kinesis()
        self._counted = _Counted(day)
        self._last: dict[str, str] = {}

    def resume(self) -> pa.Table:
        """None are known."""
        return empty_bars()

    def put(self, bars: pa.Table, revised: int = 0) -> None:
        """As TickWriter.put."""
        self._last = later(self._last, put_ticks(self._client, self._stream, columns_of(bars)))
        self._counted.add(len(bars), revised)

    def end(self, **more: Any) -> dict[str, Any]:
        """As TickWriter.end; last_sequence_numbers: of each shard that was written to."""
        end = {"last_sequence_numbers": self._last, **self._counted.to_json(), **more}
        self._market.put_json(contract.feed_end_key(self._run_id), end)
        return end


def make_writer(settings: ServingSettings, market: Bucket, run_id: str, day: date) -> TickWriter:
    """The writer for `serving.source`."""
    if settings.source == "kinesis":
        return TickRecords(market, settings.kinesis_stream, run_id, day)
    return TickObjects(market, run_id, day)


@dataclass
class _Counted:
    """polls: written; ticks: their bars, each once; revised: those that were written again."""

    day: date
    polls: int = 0
    ticks: int = 0
    revised: int = 0

    def add(self, rows: int, revised: int) -> None:
        self.polls += 1
        self.ticks += rows - revised
        self.revised += revised

    def to_json(self) -> dict[str, Any]:
        return {
            "objects": self.polls,
            "ticks": self.ticks,
            "revised": self.revised,
            "day": self.day.isoformat(),
        }

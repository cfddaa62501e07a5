"""Predictions as they come: what running streams add to their objects."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

import pyarrow as pa

from app.consumer.frames import Frame, check_frame, to_frame
from app.consumer.read import COLUMNS, KEY, objects_of, read_object, sessions
from app.consumer.selection import Instant, Period, Selection, columns_of, period, selection
from app.consumer.source import RunFolder, Source, open_source
from app.errors import SettingsError
from app.storage import Bucket, ObjectInfo


def follow(
    tickers: str | Iterable[str] | None = None,
    *,
    start: Instant | None = None,
    columns: str | Iterable[str] | None = None,
    horizons_min: int | Iterable[int] | None = None,
    run_id: str | None = None,
    every_s: float = 2.0,
    frame: Frame = "pandas",
    bucket: Source | None = None,
) -> Iterator[Any]:
    """Frames of the predictions that come from now on, without end: each once, in the order in which they were written.

    start: what was stored from then on comes first. every_s: how often is looked for more. Other arguments and errors
    as of `predictions`, but what two runs predict comes twice, and SettingsError for a run's folder, where nothing
    comes.
    """
    check_frame(frame)
    source, wanted = open_source(bucket), columns_of(columns, COLUMNS)
    if isinstance(source, RunFolder):
        raise SettingsError(f"{source.name} is a run's folder, to which nothing is added: follow a bucket")
    follower = _Follower(source, selection(tickers, horizons_min, run_id), start, wanted)
    return (to_frame(rows.select(wanted), frame) for rows in follower.rows(every_s))


class _Follower:
    """What is known of the objects: how they were listed, and how many of their rows have been given."""

    def __init__(self, source: Bucket, which: Selection, start: Instant | None, columns: list[str]) -> None:
        self._source, self._which = source, which
        self._columns = [name for name in COLUMNS if name in {*columns, *KEY}]
        self._listed: dict[str, ObjectInfo] = {}
        self._given: dict[str, int] = {}
        if start is not None:
            since = period(start, start)
            self._when = Period(since.first, date.max, since.since_ms)
            return
        known = sessions(run_id=which.run_id, bucket=source)
        self._when = Period(known[-1] if known else date.min, date.max)
        for info in objects_of(source, self._when, which):
            self._new_rows(info)

    def rows(self, every_s: float) -> Iterator[pa.Table]:
        """New rows of one object after the other."""
        while True:
            for info in objects_of(self._source, self._when, self._which):
                if self._listed.get(info.key) != info and len(new := self._new_rows(info)):
                    yield new
            time.sleep(every_s)

    def _new_rows(self, info: ObjectInfo) -> pa.Table:
        """Those beyond the ones given. An object only grows; after a crash the last rows take their places again."""
        rows = read_object(self._source, info.key, self._columns)
        given = self._given.get(info.key, 0)
        self._listed[info.key], self._given[info.key] = info, max(given, len(rows))
        return self._when.rows(self._which.rows(rows[given:]))

"""The pure middle of the dataset phase: stored bars in, splits and spec out; no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from app import contract
from app.dataset.checks import VolumeFault, check_bars, empty_days, too_short, volume_faults
from app.dataset.cut import cut_sessions, volume_profile, within
from app.dataset.features import FloatArray, Rows
from app.dataset.grid import SessionGrid, make_grid
from app.dataset.spec import Spec, fit_scale
from app.dataset.split import SPLITS, Split, split_by_time
from app.dataset.windows import session_starts
from app.errors import TooFewBars
from app.sessions import Session
from app.settings import DatasetSettings
from app.storage import fingerprint, to_json

ROWS = pa.schema(
    [
        pa.field("ticker", pa.string()),
        pa.field("ts", pa.timestamp("ms", tz="UTC")),
        pa.field("close", pa.float64()),
        pa.field("observed", pa.bool_()),
        *(pa.field(name, pa.float32()) for name in contract.FEATURES),
    ]
)
"""A split's dense rows, ordered by ticker and time, one for each minute of each session; features not scaled,
NaN where a value is not to be trusted."""

GROUP_ROWS = 20_000
"""A row group is closed when it holds so many rows: small enough to deal to ranks, large enough to read at once."""


class Group(NamedTuple):
    """A row group of a stored split: its rows, and the windows that lie in them."""

    rows: int
    windows: int


@dataclass(frozen=True)
class Dataset:
    """What the dataset phase stores.

    splits: a ROWS table by name; windows: their number by split; groups: whole sessions of a split that are
    stored, and can be read, together; faults and short_sessions: what the checks found.
    """

    settings: DatasetSettings
    splits: Mapping[str, pa.Table]
    spec: Spec
    windows: Mapping[str, int]
    groups: Mapping[str, tuple[Group, ...]]
    days: Mapping[str, tuple[date, ...]]
    faults: tuple[VolumeFault, ...]
    short_sessions: Mapping[tuple[str, date], int]
    filled_minutes: int

    def report(self) -> dict[str, Any]:
        """The spec's JSON with what the checks found."""
        return {
            **self.spec.to_json(),
            "settings": self.settings.model_dump(mode="json"),
            "windows": dict(self.windows),
            "groups": {name: [list(group) for group in groups] for name, groups in self.groups.items()},
            "days": {name: [day.isoformat() for day in days] for name, days in self.days.items()},
            "volume_faults": [
                {"ticker": f.ticker, "day": f.day, "zero_bars": f.zero_bars, "total_ratio": round(f.total_ratio, 2)}
                for f in self.faults
            ],
            "short_sessions": [
                {"ticker": ticker, "day": day, "bars": held} for (ticker, day), held in self.short_sessions.items()
            ],
            "filled_minutes": self.filled_minutes,
        }


def build_dataset(
    bars: pa.Table,
    sessions: Sequence[Session],
    settings: DatasetSettings,
    on_ticker: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """Check the bars, lay them on their grids, split them by time and fit the scaler on the training part.

    bars: the contract's BARS, ordered by (ticker, ts). on_ticker: told (done, total) tickers.
    Bars outside the sessions, and on days to leave out, play no part.
    Raises BadBars for broken bars; TooFewBars when a whole day, or a split, holds no window.
    """
    sessions = [session for session in sessions if session.day not in settings.exclude_days]
    bars = within(bars, sessions)
    check_bars(bars)
    window, horizon = settings.window_min, max(settings.horizons_min)
    splits = split_by_time(
        sessions, validation=settings.validation_days, test=settings.test_days, gap_min=window + horizon
    )
    pieces = cut_sessions(bars, sessions)
    held = {key: len(piece.ts) for key, piece in pieces.items()}
    if short_days := empty_days(held, sessions, window + horizon):
        day, most = next(iter(short_days.items()))
        raise TooFewBars(
            f"{day}: no ticker has more than {most} bars, a window of {window} and a horizon of {horizon} need"
            f' {window + horizon}: ingest that day again, or leave it out with dataset.exclude_days=["{day}"]'
        )
    train_days = {session.day for session in splits["train"].sessions}
    faults = volume_faults({key: piece.volume for key, piece in pieces.items()}, train_days)
    # Later days stay as they are: a stream, which they stand for, cannot know a session before it is over.
    masked = {(fault.ticker, fault.day) for fault in faults if fault.day in train_days}
    pieces |= {key: replace(pieces[key], volume=np.full(len(pieces[key].ts), np.nan)) for key in masked}
    profile = volume_profile(pieces, splits["train"])
    grids: dict[str, list[SessionGrid]] = {}
    tickers = sorted({ticker for ticker, _ in pieces})
    for done, ticker in enumerate(tickers):
        on_ticker(done, len(tickers))
        grids[ticker] = [
            make_grid(ticker, session, pieces[ticker, session.day], profile)
            for session in sessions
            if (ticker, session.day) in pieces
        ]
    on_ticker(len(tickers), len(tickers))
    tables = {name: _rows_table(grids, splits[name]) for name in SPLITS}
    groups = {name: _groups(grids, splits[name], settings) for name in SPLITS}
    counts = {name: sum(group.windows for group in groups[name]) for name in SPLITS}
    for name, count in counts.items():
        if not count:
            raise TooFewBars(f"the {name} days {_span(splits[name])} hold no window of {window} + {horizon} minutes")
    return Dataset(
        settings=settings,
        splits=tables,
        spec=_fit_spec(grids, splits["train"], settings, tables, profile),
        windows=counts,
        groups=groups,
        days={name: tuple(session.day for session in splits[name].sessions) for name in SPLITS},
        faults=faults,
        short_sessions=too_short(held, window + horizon),
        filled_minutes=sum(grid.filled_minutes for each in grids.values() for grid in each),
    )


def _usable(grids: Mapping[str, list[SessionGrid]], split: Split) -> list[tuple[SessionGrid, int]]:
    """Grids of a split with the minutes of each that may be used, by ticker and time."""
    days = set(split.sessions)
    return [
        (grid, split.minutes_of(grid.session))
        for ticker in sorted(grids)
        for grid in grids[ticker]
        if grid.session in days and split.minutes_of(grid.session)
    ]


def _rows_table(grids: Mapping[str, list[SessionGrid]], split: Split) -> pa.Table:
    parts = []
    for grid, minutes in _usable(grids, split):
        ts = (grid.session.open_ts + contract.BAR_S * np.arange(minutes)) * 1000
        columns: dict[str, Any] = {
            "ticker": pa.array([grid.ticker] * minutes),
            "ts": pa.array(ts).cast(ROWS.field("ts").type),
            "close": grid.close[:minutes],
            "observed": grid.observed[:minutes],
        }
        columns |= {name: grid.features[:minutes, i] for i, name in enumerate(contract.FEATURES)}
        parts.append(pa.table(columns, schema=ROWS))
    return pa.concat_tables(parts).combine_chunks() if parts else ROWS.empty_table()


def _groups(grids: Mapping[str, list[SessionGrid]], split: Split, settings: DatasetSettings) -> tuple[Group, ...]:
    groups, rows, windows = [], 0, 0
    for grid, minutes in _usable(grids, split):
        rows, windows = rows + minutes, windows + len(_starts(grid, minutes, settings))
        if rows >= GROUP_ROWS:
            groups.append(Group(rows, windows))
            rows, windows = 0, 0
    return tuple([*groups, Group(rows, windows)] if rows else groups)


def _starts(grid: SessionGrid, minutes: int, settings: DatasetSettings) -> Any:
    furthest = max(settings.horizons_min)
    return session_starts(grid.observed[:minutes], settings.window_min, furthest, settings.max_filled_share)


def _fit_spec(
    grids: Mapping[str, list[SessionGrid]],
    train: Split,
    settings: DatasetSettings,
    tables: Mapping[str, pa.Table],
    profile: FloatArray,
) -> Spec:
    """The spec, its scaler fitted on training rows and targets alone."""
    features: dict[str, list[Rows]] = {}
    targets: dict[str, list[Rows]] = {}
    for grid, count in _usable(grids, train):
        last = _starts(grid, count, settings) + settings.window_min - 1
        future = np.stack([grid.close[last + minutes] for minutes in settings.horizons_min], axis=-1)
        returns = np.log(future / grid.close[last, None]).astype(np.float32)
        features.setdefault(grid.ticker, []).append(grid.features[:count][grid.observed[:count]])
        targets.setdefault(grid.ticker, []).append(returns)
    trained = [ticker for ticker in features if sum(map(len, targets[ticker]))]
    pooled = fit_scale(
        np.concatenate([rows for ticker in trained for rows in features[ticker]]),
        np.concatenate([returns for ticker in trained for returns in targets[ticker]]),
    )
    scales = {
        ticker: fit_scale(np.concatenate(features[ticker]), np.concatenate(targets[ticker]), pooled)
        for ticker in trained
    }
    content = [to_json(settings.model_dump(mode="json"))]
    content += [column.to_numpy().tobytes() for name in SPLITS for column in tables[name].drop(["ticker"]).columns]
    return Spec(
        window_min=settings.window_min,
        horizons_min=settings.horizons_min,
        features=contract.FEATURES,
        scales=scales,
        default_scale=pooled,
        volume_profile=tuple(profile.tolist()),
        fingerprint=fingerprint(*content, ",".join(sorted(grids)).encode()),
    )


def _span(split: Split) -> str:
    return f"{split.sessions[0].day} to {split.sessions[-1].day}"

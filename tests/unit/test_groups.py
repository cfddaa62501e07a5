"""Row groups: whole sessions that are stored together, so that a part of a split can be read alone."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app import contract
from app.dataset import build
from app.dataset.build import Dataset, Group, build_dataset
from app.dataset.run import run_dataset
from app.dataset.windows import window_set
from app.errors import TooFewBars
from app.ingest.plan import make_plan
from app.settings import DatasetSettings
from app.storage import Bucket
from app.tables import get_table, parquet, put_table
from tests.fakes import FakeS3, bucket, make_bars, make_sessions, market_bars

SESSIONS = make_sessions(30, 20, 30, 30, 30)
TICKERS = ["LIQ", "RARE", "THIN"]
SETTINGS = DatasetSettings(window_min=5, horizons_min=(1, 3), validation_days=1, test_days=1, max_filled_share=0.5)
BARS = pa.concat_tables(
    [
        market_bars(["LIQ"], SESSIONS),
        *(make_bars("RARE", session, [0, 9, 25]) for session in SESSIONS if session.minutes > 25),
        market_bars(["THIN"], SESSIONS, gaps={"THIN": 4}),
    ]
)


@pytest.fixture(params=[1, 40, 60, 100_000])
def dataset(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A dataset whose row groups hold at least so many rows."""
    monkeypatch.setattr(build, "GROUP_ROWS", request.param)
    return build_dataset(BARS, SESSIONS, SETTINGS)


def slices(table: pa.Table, groups: tuple[Group, ...]) -> list[pa.Table]:
    ends = [sum(group.rows for group in groups[: i + 1]) for i in range(len(groups))]
    return [table.slice(end - group.rows, group.rows) for end, group in zip(ends, groups, strict=True)]


def windows_in(table: pa.Table, dataset: Dataset) -> int:
    try:
        return len(window_set(table, dataset.spec, SETTINGS.max_filled_share))
    except TooFewBars:
        return 0


def test_groups_cover_each_split_and_count_the_windows_that_lie_in_them(dataset: Dataset) -> None:
    for name, table in dataset.splits.items():
        parts = slices(table, dataset.groups[name])
        assert sum(len(part) for part in parts) == len(table)
        assert [windows_in(part, dataset) for part in parts] == [group.windows for group in dataset.groups[name]]
        assert sum(group.windows for group in dataset.groups[name]) == dataset.windows[name]
        assert dataset.windows[name] == windows_in(table, dataset) > 0


def test_a_session_of_a_ticker_lies_in_one_group_and_groups_are_closed_when_they_are_large_enough(
    dataset: Dataset,
) -> None:
    for name, table in dataset.splits.items():
        parts = slices(table, dataset.groups[name])
        held = [{(row["ticker"], row["ts"].date()) for row in part.to_pylist()} for part in parts]
        assert sum(len(keys) for keys in held) == len(set().union(*held))
        assert all(len(part) >= build.GROUP_ROWS for part in parts[:-1])
        assert all(len(part) < build.GROUP_ROWS + 30 for part in parts)


def test_the_windows_of_all_groups_are_those_of_the_split_in_its_order(dataset: Dataset) -> None:
    table, groups = dataset.splits["train"], dataset.groups["train"]
    whole = window_set(table, dataset.spec, SETTINGS.max_filled_share)
    found: list[Any] = []
    for part, group in zip(slices(table, groups), groups, strict=True):
        if group.windows:
            windows = window_set(part, dataset.spec, SETTINGS.max_filled_share)
            found += zip(
                [windows.tickers[code] for code in windows.ticker],
                windows.as_of.tolist(),
                windows.inputs(slice(None)).tolist(),
                windows.targets.tolist(),
                strict=True,
            )
    assert [row[:2] for row in found] == [
        (whole.tickers[code], as_of) for code, as_of in zip(whole.ticker, whole.as_of.tolist(), strict=True)
    ]
    assert [row[2] for row in found] == whole.inputs(slice(None)).tolist()
    assert [row[3] for row in found] == whole.targets.tolist()


def stored(models: Bucket, split: str) -> pq.ParquetFile:
    return pq.ParquetFile(io.BytesIO(models.get(contract.dataset_key("r", split))))


def test_a_stored_split_has_these_row_groups_and_the_spec_tells_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "GROUP_ROWS", 40)
    market, models = bucket(FakeS3()), bucket(FakeS3())
    market.put_json(contract.plan_key("r"), make_plan("r", TICKERS, SESSIONS, shards=1, request_days=7).to_json())
    put_table(market, contract.bars_key(SESSIONS[0].day, "s"), BARS)
    run_dataset("r", market, models, SETTINGS, lambda done, total, note: None)
    told = models.get_json(contract.dataset_spec_key("r"))["groups"]
    dataset = build_dataset(BARS, SESSIONS, SETTINGS)
    for name, table in dataset.splits.items():
        file = stored(models, name)
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [n for n, _ in told[name]]
        assert [Group(*group) for group in told[name]] == list(dataset.groups[name])
        assert len(told[name]) > 1
        assert file.read().equals(table)
        second = file.read_row_groups([1], columns=["ticker", "session_minute"])
        assert second.equals(slices(table, dataset.groups[name])[1].select(["ticker", "session_minute"]))


def test_a_table_without_groups_is_written_as_ever() -> None:
    held = bucket()
    put_table(held, "key", BARS)
    assert get_table(held, "key").equals(BARS)
    assert pq.ParquetFile(io.BytesIO(parquet(BARS))).num_row_groups == 1
    assert parquet(BARS) == parquet(BARS)
    assert parquet(BARS, [10, len(BARS) - 10]) == parquet(BARS, [10, len(BARS) - 10])

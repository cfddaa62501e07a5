"""A stored dataset read in parts: what is asked for, and that it is the same wherever it lies."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import tempfile
import tracemalloc
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app import contract
from app.dataset import build
from app.dataset.build import Dataset, build_dataset
from app.dataset.windows import WindowSet, window_set
from app.errors import SettingsError, StorageError, TooFewBars, TrainingError
from app.settings import DatasetSettings
from app.storage import Bucket
from app.tables import put_table
from app.training.inputs import DatasetFolder, StoredSplit, read_dataset
from app.training.part import part_bytes
from tests.fakes import FakeS3, bucket, client_error, make_sessions, market_bars, with_column

TICKERS = [f"T{number}" for number in range(6)]
SESSIONS = make_sessions(*[60] * 5)
FEATURES = ("log_return", "session_minute")
FIELDS = ("rows", "starts", "targets", "last_price", "future_price", "target_std", "as_of")


def built(monkeypatch: pytest.MonkeyPatch, group_rows: int = 100) -> Dataset:
    """Three days of six tickers to train on, in groups of two sessions: 60 minutes each, 53 on the last day."""
    monkeypatch.setattr(build, "GROUP_ROWS", group_rows)
    bars = market_bars(TICKERS, SESSIONS, gaps={"T1": 7, "T4": 3})
    settings = DatasetSettings(window_min=5, horizons_min=(1, 2), validation_days=1, test_days=1, max_filled_share=0.5)
    return build_dataset(bars, SESSIONS, settings)


def stored(dataset: Dataset, models: Bucket, run_id: str = "r") -> None:
    for name, table in dataset.splits.items():
        put_table(models, contract.dataset_key(run_id, name), table, [group.rows for group in dataset.groups[name]])
    models.put_json(contract.dataset_spec_key(run_id), dataset.report())


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A model bucket with the dataset of run r."""
    models = bucket()
    stored(built(monkeypatch), models)
    return models


def train(models: Bucket, features: tuple[str, ...] = FEATURES) -> StoredSplit:
    return read_dataset(models, "r", features).split("train")


def same(found: WindowSet, expected: WindowSet) -> None:
    """The same windows: fields, and inputs and names by window."""
    for name in set(FIELDS) - {"rows", "starts"}:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(found.inputs(slice(None)), expected.inputs(slice(None)))
    assert named(found) == named(expected)


def named(windows: WindowSet) -> list[str]:
    return [windows.tickers[number] for number in windows.ticker]


def test_the_groups_are_those_of_the_parquet_object_and_hold_the_windows_they_tell(models: Bucket) -> None:
    split = train(models)
    with pq.ParquetFile(io.BytesIO(models.get(split.key))) as file:
        rows = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        cut = [len(window_set(file.read_row_group(number), split.spec, 0.5)) for number in range(file.num_row_groups)]
    assert len(rows) > 5
    assert rows == [group.rows for group in split.groups]
    assert cut == [group.windows for group in split.groups]


def test_any_range_of_windows_is_that_of_the_whole_split(models: Bucket) -> None:
    split = train(models)
    whole = split.read()
    assert len(whole) == split.windows
    same(whole, window_set(split.table(), split.spec, 0.5))
    edges = [0, *accumulate(group.windows for group in split.groups)]
    around = sorted({min(max(0, edge + step), split.windows) for edge in edges for step in (-1, 0, 1)})
    for first in around:
        for end in around:
            if end > first:
                same(split.read(first, end), whole.between(first, end))


def test_a_model_reads_the_features_that_it_takes_in_its_own_order(models: Bucket) -> None:
    one = train(models, ("session_minute", "log_return")).read()
    other = train(models, ("log_return", "session_minute")).read()
    np.testing.assert_array_equal(one.rows, other.rows[:, ::-1])
    with pytest.raises(SettingsError, match=r"the dataset holds no feature moon: training\.features may name"):
        read_dataset(models, "r", ("moon",))


# --- what is asked of S3 --------------------------------------------------------------------------


def large(models: Bucket) -> StoredSplit:
    """A split of four row groups, of 300 kB a column that cannot be made smaller, with the spec of no model."""
    random = np.random.default_rng(0)
    rows = 4 * 40_000
    columns: dict[str, Any] = {
        "ticker": pa.array(["A"] * rows),
        "ts": pa.array(np.arange(rows) * 60_000, pa.timestamp("ms", "UTC")),
        "close": 100 + random.random(rows),
        "observed": np.ones(rows, bool),
        **{name: random.normal(size=rows).astype(np.float32) for name in contract.FEATURES},
    }
    put_table(models, contract.dataset_key("r", "train"), pa.table(columns, schema=build.ROWS), [40_000] * 4)
    report = models.get_json(contract.dataset_spec_key("r"))
    report["groups"]["train"] = [[40_000, 39_994]] * 4
    models.put_json(contract.dataset_spec_key("r"), report)
    return train(models)


def column_bytes(models: Bucket, key: str) -> dict[tuple[int, str], range]:
    """Where each column of each row group lies in the object."""
    metadata = pq.read_metadata(io.BytesIO(models.get(key)))
    places = {}
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            first = column.dictionary_page_offset or column.data_page_offset
            places[group, column.path_in_schema] = range(first, first + column.total_compressed_size)
    return places


def asked(s3: FakeS3, key: str) -> list[range]:
    return [sent for name, sent in s3.gets if name == key]


@pytest.mark.parametrize("how", ["read", "copied"])
def test_a_rank_asks_for_its_row_groups_and_columns_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    s3 = FakeS3()
    models = bucket(s3)
    stored(built(monkeypatch), models)
    split = large(models)
    places = column_bytes(models, split.key)
    s3.gets.clear()
    part = (39_994, 39_994 + 500)  # all of it in the second group
    if how == "read":
        split.read(*part)
    else:
        split.copied(*part, str(tmp_path))
    sent = asked(s3, split.key)
    wanted = [places[1, name] for name in ("ticker", "ts", "close", "observed", *FEATURES)]
    footer = 1 << 16
    ahead = (1 << 16) * len(wanted)  # what is read ahead while a small column is read
    assert sum(map(len, sent)) < sum(map(len, wanted)) + footer + ahead
    size = len(models.get(split.key))
    for place in (place for (group, _), place in places.items() if group != 1):
        untouched = range(place.start + (1 << 16), min(place.stop, size - (1 << 17)))
        assert not any(one.start < untouched.stop and untouched.start < one.stop for one in sent)
    spared = places[1, "log_range"]
    assert sum(len(range(max(one.start, spared.start), min(one.stop, spared.stop))) for one in sent) <= 1 << 16


def test_a_read_of_one_group_does_not_need_the_others_to_be_readable(models: Bucket) -> None:
    split = large(models)
    expected = split.read(0, 100)
    body = bytearray(models.get(split.key))
    for (group, _), place in column_bytes(models, split.key).items():
        if group:
            body[place.start : place.stop] = bytes(len(place))
    models.put(split.key, bytes(body))
    same(split.read(0, 100), expected)
    with pytest.raises(StorageError, match=rf"fake/{split.key} is not a Parquet object: "):
        split.read(39_994, 39_994 + 1)


def test_an_s3_that_fails_while_a_part_is_read_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Refusing(FakeS3):
        def get_object(self, **call: Any) -> dict[str, Any]:
            """Refuse what is not the file's end."""
            if "Range" in call and call["Range"].startswith("bytes=4-"):
                raise client_error("SlowDown")
            return super().get_object(**call)

    models = bucket(Refusing())
    stored(built(monkeypatch), models)
    split = large(models)
    for read in (lambda: split.read(0, 1), lambda: split.copied(0, 1, str(tmp_path))):
        with pytest.raises(StorageError, match=f"S3 refused GetObject on s3://fake/{split.key}: SlowDown"):
            read()


def test_an_object_that_is_no_table_is_told_so(models: Bucket) -> None:
    split = train(models)
    models.put(split.key, b"PAR0" * 10)
    with pytest.raises(StorageError, match=rf"fake/{split.key} is not a Parquet object: "):
        split.read()


def test_a_part_is_read_with_the_memory_of_its_windows_and_one_row_group(models: Bucket) -> None:
    rows = 20 * 20_000
    columns: dict[str, Any] = {
        "ticker": pa.array(["A"] * rows),
        # A gap after each group, so that no window leaves it.
        "ts": pa.array((np.arange(rows) + np.arange(rows) // 20_000) * 60_000, pa.timestamp("ms", "UTC")),
        "close": np.full(rows, 100.0),
        "observed": np.ones(rows, bool),
        **{name: np.arange(rows, dtype=np.float32) for name in contract.FEATURES},
    }
    put_table(models, contract.dataset_key("r", "train"), pa.table(columns, schema=build.ROWS), [20_000] * 20)
    report = models.get_json(contract.dataset_spec_key("r"))
    report["groups"]["train"] = [[20_000, 19_994]] * 20
    models.put_json(contract.dataset_spec_key("r"), report)
    split = train(models)
    split.read(0, 10)  # what is imported and kept for good
    before, arrow = pa.default_memory_pool(), pa.system_memory_pool()
    pa.set_memory_pool(arrow)
    tracemalloc.start()
    try:
        found = split.read(10_000)
        peak = tracemalloc.get_traced_memory()[1] + arrow.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    needed = part_bytes(split.rows, split.windows, 2, 2)
    assert len(found) == split.windows - 10_000
    assert 0.9 * needed < peak < needed + 8 * 2**20


# --- what a stored dataset may not hold -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("log_return", np.inf, "inf"),
        ("log_return", np.nan, "nan"),
        ("log_volume", -np.inf, "-inf"),
        ("log_volume", np.nan, ""),  # not to be trusted, and known as such
        ("log_range", np.inf, ""),  # of no concern to a model that does not take it
        ("close", np.nan, "nan"),
        ("close", 0.0, "0.0"),
    ],
)
def test_a_number_that_nothing_can_be_learnt_from_is_refused_with_ticker_and_time(
    models: Bucket, tmp_path: Path, name: str, value: float, fault: str
) -> None:
    split = train(models, ("log_return", "log_volume"))
    table = split.table()
    values = table[name].to_numpy().copy()
    values[170] = value
    ticker, when = table["ticker"][170].as_py(), table["ts"][170].as_py().isoformat()
    put_table(models, split.key, with_column(table, name, values), [group.rows for group in split.groups])
    reads: list[Callable[[], WindowSet]] = [
        split.read,
        lambda: split.copied(0, split.windows, str(tmp_path)).read(),
    ]
    for read in reads:
        if fault:
            told = f"^{name} of {ticker} as of {re.escape(when)} is {fault} in .*: look at the bars there, and make the"
            with pytest.raises(TrainingError, match=told):
                read()
        else:
            assert np.isfinite(read().rows).all()


def test_groups_that_are_not_those_of_the_spec_are_refused(models: Bucket) -> None:
    report = models.get_json(contract.dataset_spec_key("r"))
    report["groups"]["train"][1][1] -= 1
    models.put_json(contract.dataset_spec_key("r"), report)
    told = r"holds \d+ windows in \d+ rows in row group 1, not \d+ in \d+ as its spec.json tells: make the dataset"
    with pytest.raises(StorageError, match=told):
        train(models).read()


# --- elsewhere ------------------------------------------------------------------------------------


def test_a_folder_gives_what_the_bucket_gives(models: Bucket, tmp_path: Path) -> None:
    for key in models.keys(f"{contract.DATASETS_PREFIX}r/"):
        (tmp_path / key.rpartition("/")[2]).write_bytes(models.get(key))
    ours = read_dataset(DatasetFolder(str(tmp_path)), "r", FEATURES)
    theirs = read_dataset(models, "r", FEATURES)
    assert (ours.spec, ours.settings, ours.groups, ours.days) == (
        theirs.spec,
        theirs.settings,
        theirs.groups,
        theirs.days,
    )
    for name in ("train", "validation", "test"):
        same(ours.split(name).read(), theirs.split(name).read())
        same(ours.split(name).read(3, 30), theirs.split(name).read(3, 30))
        assert ours.split(name).table().equals(theirs.split(name).table())


@pytest.mark.parametrize("name", ["spec.json", "train.parquet"])
def test_a_file_that_is_not_in_the_folder_is_named(models: Bucket, tmp_path: Path, name: str) -> None:
    for key in models.keys(f"{contract.DATASETS_PREFIX}r/"):
        if not key.endswith(name):
            (tmp_path / key.rpartition("/")[2]).write_bytes(models.get(key))
    with pytest.raises(StorageError, match=rf"{name} cannot be read .*: the channel must mirror datasets/r/$"):
        read_dataset(DatasetFolder(str(tmp_path)), "r", FEATURES).split("train").read()


@pytest.mark.parametrize(("first", "end"), [(0, 1), (150, 300), (97, 430), (0, None)])
def test_a_copy_holds_the_same_windows_under_the_same_numbers(
    models: Bucket, tmp_path: Path, first: int, end: int | None
) -> None:
    split = train(models)
    end = split.windows if end is None else end
    whole = split.read()
    copy = split.copied(first, end, str(tmp_path))
    assert 0 < len(copy.groups) <= len(split.groups)
    models.delete(split.key)  # it is asked no more
    middle = (first + end) // 2
    for low, high in ((first, end), (first, max(middle, first + 1)), (min(middle, end - 1), end)):
        same(copy.read(low, high), whole.between(low, high))
    assert copy.table().column_names == ["ticker", "ts", "close", "observed", *FEATURES]


def test_a_copy_has_no_name_that_a_killed_rank_could_leave_behind(models: Bucket, tmp_path: Path) -> None:
    copy = train(models).copied(0, 300, str(tmp_path))
    assert os.listdir(tmp_path) == []
    assert len(copy.read(0, 300)) == 300


def test_a_disk_that_takes_no_copy_is_named(models: Bucket, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(StorageError, match=rf"^{gone} takes no copy .* \(No such file or directory\): free space"):
        train(models).copied(0, 300, str(gone))


def test_a_disk_that_is_full_is_told(models: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        """Takes the four bytes with which Parquet begins."""

        def write(self, body: Any) -> int:
            if self.tell():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(body)

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: Full())
    with pytest.raises(StorageError, match=r"takes no copy of the training rows \(No space left on device\)"):
        train(models).copied(0, 300, str(tmp_path))


def test_the_report_says_all_that_reading_needs(models: Bucket) -> None:
    report = json.loads(models.get(contract.dataset_spec_key("r")))
    dataset = read_dataset(models, "r", FEATURES)
    assert {name: dataset.split(name).windows for name in dataset.groups} == report["windows"]
    assert {name: dataset.split(name).rows for name in dataset.groups} == {
        name: len(dataset.split(name).table()) for name in dataset.groups
    }


def test_no_windows_are_told(models: Bucket) -> None:
    with pytest.raises(TooFewBars, match=r"train\.parquet holds no window: make the dataset from more sessions"):
        read_dataset(models, "r", FEATURES).split("train").read(0, 0)

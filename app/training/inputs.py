"""A stored dataset as a rank reads it: by column and by row group, so that a part costs what the part holds."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app import contract
from app.dataset.build import Group
from app.dataset.spec import Spec
from app.dataset.windows import WindowSet, joined, window_set
from app.errors import StorageError, TooFewBars, TrainingError
from app.ingest.bars import bar_starts
from app.sessions import utc
from app.settings import DatasetSettings
from app.storage import Bucket

_MAY_BE_UNKNOWN = frozenset({contract.FEATURE_VOLUME, contract.FEATURE_RELATIVE_VOLUME})
"""NaN where a volume is not to be trusted, which scales to the mean; of all else it is a fault."""


class DatasetFolder(Bucket):
    """A folder that mirrors `datasets/<run>/`, read by the keys of the model bucket; S3 is never asked."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder, client=object())

    def get(self, key: str) -> bytes:
        """The file named as the last part of the key; StorageError when it cannot be read."""
        with self.open(key) as file:
            return file.read()

    def open(self, key: str) -> BinaryIO:
        """That file, to be read in parts."""
        path = Path(self.name, key.rpartition("/")[2])
        try:
            return path.open("rb")
        except OSError as exc:
            raise StorageError(
                f"{path} cannot be read ({exc.strerror}): the channel must mirror {key.rpartition('/')[0]}/"
            ) from exc


class _Unnamed(Bucket):
    """One object, in a file of a folder that has no name: it is gone with the process, whatever ends that."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder, client=object())
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  open as long as this is
        weakref.finalize(self, self.file.close)

    def size_tagged(self, key: str) -> tuple[int, str]:
        """Bytes written so far; nobody else writes them."""
        return os.fstat(self.file.fileno()).st_size, ""

    def get_range(self, key: str, first: int, size: int, tag: str = "") -> bytes:
        """`size` bytes from byte `first` on."""
        return os.pread(self.file.fileno(), size, first)


@dataclass(frozen=True)
class StoredDataset:
    """What is known of a run's dataset before any of its rows is read.

    source: the model bucket or a DatasetFolder; spec: of what the model takes; settings: those it was made with;
    groups: row groups, and days: New York dates, of each split.
    """

    source: Bucket
    run_id: str
    spec: Spec
    settings: DatasetSettings
    groups: dict[str, tuple[Group, ...]]
    days: dict[str, list[str]]

    def split(self, name: str) -> StoredSplit:
        """One of its splits."""
        key = contract.dataset_key(self.run_id, name)
        return StoredSplit(self.source, key, self.spec, self.settings.max_filled_share, self.groups[name])


def read_dataset(source: Bucket, run_id: str, features: Sequence[str]) -> StoredDataset:
    """The dataset of a run, for a model that takes these features."""
    stored = source.get_json(contract.dataset_spec_key(run_id))
    return StoredDataset(
        source=source,
        run_id=run_id,
        spec=Spec.from_json(stored).select(features),
        settings=DatasetSettings.model_validate(stored["settings"]),
        groups={name: tuple(Group(*group) for group in groups) for name, groups in stored["groups"].items()},
        days=stored["days"],
    )


@dataclass(frozen=True)
class StoredSplit:
    """A split, or some row groups of it that follow each other; `before`: windows of the split ahead of them."""

    source: Bucket
    key: str
    spec: Spec
    max_filled_share: float
    groups: tuple[Group, ...]
    before: int = 0

    @property
    def windows(self) -> int:
        """How many windows these groups hold."""
        return sum(group.windows for group in self.groups)

    @property
    def rows(self) -> int:
        """How many rows these groups hold."""
        return sum(group.rows for group in self.groups)

    def read(self, first: int = 0, end: int | None = None) -> WindowSet:
        """The windows of the split numbered first to end - 1, read group by group; of those that hold them alone.

        Raises TrainingError for a number that nothing can be learnt from, and TooFewBars where there are none.
        """
        end = self.before + self.windows if end is None else end
        low, high, before = self._groups_of(first, end)
        held = [number for number in range(low, high) if self.groups[number].windows]
        if not held:
            raise TooFewBars(f"{self.source.name}/{self.key} holds no window: make the dataset from more sessions")
        rows, windows = (sum(sizes) for sizes in zip(*(self.groups[number] for number in held), strict=True))
        return joined(self._sets(held), rows, windows).between(first - before, end - before)

    def share(self, rank: int, ranks: int) -> WindowSet:
        """A rank's share of the windows, to measure on; where there are fewer than ranks, all of them on each."""
        count = self.windows
        return self.read(rank * count // ranks, (rank + 1) * count // ranks) if count >= ranks else self.read()

    def table(self) -> pa.Table:
        """All stored rows, all columns."""
        with self._file() as file:
            return file.read(use_threads=False)

    def copied(self, first: int, end: int, folder: str) -> StoredSplit:
        """The row groups that hold these windows, on the disk of a folder."""
        low, high, before = self._groups_of(first, end)
        with _writing(folder):
            copy = _Unnamed(folder)
        with self._file() as stored:
            schema = pa.schema([stored.schema_arrow.field(name) for name in self._columns])
            writer = pq.ParquetWriter(copy.file, schema, compression="lz4")
            for number in range(low, high):
                group = stored.read_row_group(number, columns=self._columns, use_threads=False)
                with _writing(folder):
                    writer.write_table(group, row_group_size=len(group))
        with _writing(folder):
            writer.close()
            copy.file.flush()
        return StoredSplit(copy, self.key, self.spec, self.max_filled_share, self.groups[low:high], before)

    def _groups_of(self, first: int, end: int) -> tuple[int, int, int]:
        """First and behind-last group that hold these windows, and the windows of the split ahead of them."""
        ends = list(accumulate((group.windows for group in self.groups), initial=self.before))
        inside = [i for i in range(len(self.groups)) if ends[i] < end and ends[i + 1] > first]
        if not inside:
            return 0, 0, self.before
        return inside[0], inside[-1] + 1, ends[inside[0]]

    @property
    def _columns(self) -> list[str]:
        return ["ticker", "ts", "close", "observed", *self.spec.features]

    def _sets(self, groups: Iterable[int]) -> Iterator[WindowSet]:
        """The windows of each of these row groups."""
        with self._file() as file:
            for number in groups:  # without threads: see app.tables
                table = file.read_row_group(number, columns=self._columns, use_threads=False)
                self._check(table)
                windows = window_set(table, self.spec, self.max_filled_share)
                if (len(table), len(windows)) != self.groups[number]:
                    raise StorageError(
                        f"{self.source.name}/{self.key} holds {len(windows)} windows in {len(table)} rows in row group"
                        f" {number}, not {self.groups[number].windows} in {self.groups[number].rows} as its spec.json"
                        " tells: make the dataset again"
                    )
                yield windows

    def _check(self, table: pa.Table) -> None:
        for name in ("close", *self.spec.features):
            values = table[name].to_numpy()
            broken = np.isinf(values) if name in _MAY_BE_UNKNOWN else ~np.isfinite(values)
            if name == "close":
                broken |= values <= 0
            if broken.any():
                at = int(np.argmax(broken))
                when = utc(int(bar_starts(table)[at])).isoformat()
                raise TrainingError(
                    f"{name} of {table['ticker'][at]} as of {when} is {values[at]} in {self.source.name}/{self.key}:"
                    " look at the bars there, and make the dataset again"
                )

    @contextmanager
    def _file(self) -> Iterator[pq.ParquetFile]:
        with self.source.open(self.key) as opened:
            try:
                yield pq.ParquetFile(opened)
            except (pa.ArrowException, OSError) as exc:
                raise StorageError(f"{self.source.name}/{self.key} is not a Parquet object: {exc}") from exc


@contextmanager
def _writing(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StorageError(
            f"{folder} takes no copy of the training rows ({exc.strerror}): free space there or set TMPDIR"
        ) from exc

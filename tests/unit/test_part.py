"""A rank's share of the windows, and the order in which it takes them, resident or in chunks."""

from __future__ import annotations

import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import contract
from app.dataset import build
from app.dataset.build import build_dataset
from app.dataset.windows import WindowSet
from app.errors import StorageError
from app.settings import DatasetSettings
from app.storage import Bucket
from app.tables import put_table
from app.training.inputs import StoredSplit, read_dataset
from app.training.part import Part, part_bytes, stored_part
from tests.fakes import FakeS3, bucket, client_error, make_sessions, market_bars

WINDOW = 3


def numbered(first: int, end: int) -> WindowSet:
    """Windows whose number among all is their time."""
    count = end - first
    ones = np.ones(count)
    return WindowSet(
        rows=np.zeros((count + WINDOW - 1, 2), np.float32),
        starts=np.arange(count),
        targets=ones[:, None].astype(np.float32),
        last_price=ones,
        future_price=ones[:, None],
        target_std=ones[:, None].astype(np.float32),
        ticker=np.zeros(count, np.int64),
        as_of=np.arange(first, end),
        tickers=("A",),
        window=WINDOW,
    )


def taken(part: Part, *, epoch: int = 0, seed: int = 7, batch: int = 4, position: int = 0) -> list[list[int]]:
    """The numbers of the windows of each batch."""
    batches = part.batches(epoch=epoch, seed=seed, batch=batch, position=position)
    return [one.chunk.as_of[one.chosen].tolist() for one in batches]


def flat(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


SIZES = {"windows": st.integers(0, 300), "ranks": st.integers(1, 5), "chunks": st.integers(1, 9)}


@given(**SIZES, batch=st.integers(1, 20), seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_ranks_take_disjoint_windows_and_all_but_the_remainder(
    windows: int, ranks: int, chunks: int, batch: int, seed: int, epoch: int
) -> None:
    parts = [Part(numbered, windows, rank=rank, ranks=ranks, chunks=chunks) for rank in range(ranks)]
    batches = [taken(part, epoch=epoch, seed=seed, batch=batch) for part in parts]
    assert {len(one) for one in batches} == {parts[0].steps_per_epoch(batch)}
    assert {len(one) for each in batches for one in each} <= {batch}
    seen = [number for each in batches for number in flat(each)]
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(windows))
    held = parts[0].chunks * parts[0].chunk_windows
    assert windows - ranks * held < ranks * parts[0].chunks + ranks
    assert held - len(flat(batches[0])) < parts[0].chunks * batch


@given(**SIZES)
def test_what_no_epoch_may_take_is_less_than_a_window_of_each_chunk_and_rank(
    windows: int, ranks: int, chunks: int
) -> None:
    parts = [Part(numbered, windows, rank=rank, ranks=ranks, chunks=chunks) for rank in range(ranks)]
    every = [sorted(flat(taken(part, batch=1))) for part in parts]
    mine = windows // ranks
    for rank, numbers in enumerate(every):
        assert numbers == list(range(rank * mine, rank * mine + len(numbers)))
        assert mine - len(numbers) < max(1, parts[rank].chunks)


@given(**SIZES, batch=st.integers(1, 20), epoch=st.integers(0, 2))
def test_a_position_gives_the_rest_of_the_epoch(windows: int, ranks: int, chunks: int, batch: int, epoch: int) -> None:
    part = Part(numbered, windows, rank=ranks - 1, ranks=ranks, chunks=chunks)
    whole = taken(part, epoch=epoch, batch=batch)
    for position in range(len(whole) + 1):
        assert taken(part, epoch=epoch, batch=batch, position=position) == whole[position:]


@given(chunks=st.integers(1, 6), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_seed_and_epoch_fix_one_order_for_all_ranks(chunks: int, seed: int, epoch: int) -> None:
    ranks = [Part(numbered, 180, rank=rank, ranks=3, chunks=chunks) for rank in range(3)]
    orders = [taken(part, epoch=epoch, seed=seed) for part in ranks]
    for rank, order in enumerate(orders):
        assert [[number - rank * 60 for number in batch] for batch in order] == orders[0]
        assert taken(ranks[rank], epoch=epoch, seed=seed) == order  # whatever chunk it holds by now
    assert orders[0] not in (taken(ranks[0], epoch=epoch + 1, seed=seed), taken(ranks[0], epoch=epoch, seed=seed + 1))
    assert flat(orders[0]) != sorted(flat(orders[0]))


def test_each_chunk_and_each_epoch_has_a_shuffle_of_its_own() -> None:
    part = Part(numbered, 400, rank=0, ranks=1, chunks=4)
    epochs = [taken(part, epoch=epoch, batch=100) for epoch in range(3)]
    assert len({tuple(number % 100 for number in batch) for batches in epochs for batch in batches}) == 12
    assert len({tuple(batch[0] // 100 for batch in batches) for batches in epochs}) == 3  # the chunks' own order


def test_windows_that_fill_no_batch_wait_for_another_epoch() -> None:
    part = Part(numbered, 47, rank=0, ranks=2, chunks=1)  # 23 windows, two batches of 10
    left_out = [set(range(23)) - set(flat(taken(part, epoch=epoch, batch=10))) for epoch in range(40)]
    assert {len(each) for each in left_out} == {3}
    assert set.union(*left_out) == set(range(23))


@pytest.mark.parametrize(
    ("windows", "batch", "ranks", "chunks", "steps"),
    [
        (100, 10, 1, 1, 10),
        (100, 10, 3, 1, 3),
        (29, 10, 3, 1, 0),
        (30, 10, 3, 1, 1),
        (100, 10, 1, 3, 9),
        (5, 1, 9, 4, 0),
    ],
)
def test_a_step_takes_one_batch_on_every_rank(windows: int, batch: int, ranks: int, chunks: int, steps: int) -> None:
    assert Part(numbered, windows, rank=0, ranks=ranks, chunks=chunks).steps_per_epoch(batch) == steps


# --- chunks ---------------------------------------------------------------------------------------


class Alive:
    """Loads chunks and counts how many of them live at once; one that is being loaded counts."""

    def __init__(self) -> None:
        self.loads: list[tuple[int, int]] = []
        self.most = 0
        self._rows: list[weakref.ref[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]] = []
        self._lock = threading.Lock()

    def __call__(self, first: int, end: int) -> WindowSet:
        with self._lock:
            self.loads.append((first, end))
            windows = numbered(first, end)
            self._rows.append(weakref.ref(windows.rows))
            self.most = max(self.most, sum(rows() is not None for rows in self._rows))
        return windows


@pytest.mark.parametrize(("chunks", "batch"), [(1, 4), (2, 4), (6, 4), (6, 20), (6, 1)])
def test_no_more_than_two_chunks_are_alive(chunks: int, batch: int) -> None:
    load = Alive()
    part = Part(load, 240, rank=1, ranks=2, chunks=chunks)
    for epoch in range(3):
        for one in part.batches(epoch=epoch, seed=7, batch=batch):
            last = one  # as long as the one after it is not taken, as the training loop does
    assert len(last.chosen) == batch
    assert load.most == min(chunks, 2)
    assert set(load.loads) == {(120 + i * 120 // chunks, 120 + (i + 1) * 120 // chunks) for i in range(chunks)}
    if chunks == 1:
        assert len(load.loads) == 1


def test_the_next_chunk_is_read_while_the_one_before_is_taken() -> None:
    loading, go_on = threading.Event(), threading.Event()

    def load(first: int, end: int) -> WindowSet:
        if threading.current_thread() is not threading.main_thread():
            loading.set()
            assert go_on.wait(20)
        return numbered(first, end)

    batches = Part(load, 16, rank=0, ranks=1, chunks=2).batches(epoch=0, seed=7, batch=2)
    own = [next(batches) for _ in range(4)]
    assert loading.wait(20)
    assert len({id(batch.chunk) for batch in own}) == 1
    go_on.set()
    assert len(list(batches)) == 4


def test_a_chunk_that_cannot_be_read_ends_the_epoch_with_its_reason() -> None:
    def load(first: int, end: int) -> WindowSet:
        if threading.current_thread() is not threading.main_thread():
            raise StorageError("the disk is gone")
        return numbered(first, end)

    batches = Part(load, 16, rank=0, ranks=1, chunks=2).batches(epoch=0, seed=7, batch=2)
    for _ in range(4):
        next(batches)
    with pytest.raises(StorageError, match="the disk is gone"):
        next(batches)


# --- a stored split -------------------------------------------------------------------------------

SESSIONS = make_sessions(*[60] * 5)
TICKERS = [f"T{number}" for number in range(5)]


def stored(monkeypatch: pytest.MonkeyPatch, models: Bucket) -> StoredSplit:
    """A split of a few small row groups."""
    monkeypatch.setattr(build, "GROUP_ROWS", 100)
    settings = DatasetSettings(window_min=5, horizons_min=(1, 2), validation_days=1, test_days=1, max_filled_share=0.5)
    dataset = build_dataset(market_bars(TICKERS, SESSIONS, gaps={"T2": 4}), SESSIONS, settings)
    for name, table in dataset.splits.items():
        put_table(models, contract.dataset_key("r", name), table, [group.rows for group in dataset.groups[name]])
    models.put_json(contract.dataset_spec_key("r"), dataset.report())
    return read_dataset(models, "r", contract.DEFAULT_FEATURES).split("train")


def windows_of(part: Part, *, epoch: int = 0, batch: int = 1, position: int = 0) -> list[tuple[str, int, bytes, bytes]]:
    """Ticker, time, inputs and targets of each window of an epoch, in order."""
    found = []
    for one in part.batches(epoch=epoch, seed=7, batch=batch, position=position):
        chunk, chosen = one.chunk, one.chosen
        inputs = chunk.inputs(chosen)
        found += [
            (chunk.tickers[chunk.ticker[i]], int(chunk.as_of[i]), inputs[at].tobytes(), chunk.targets[i].tobytes())
            for at, i in enumerate(chosen)
        ]
    return found


def chunked(split: StoredSplit, rank: int, folder: Path | None, chunks: int) -> Part:
    """A part of so many chunks: of those for which `resident_mib` would be less than one."""
    mine = split.windows // 2
    local = split.copied(rank * mine, (rank + 1) * mine, str(folder)) if folder else split
    return Part(local.read, split.windows, rank=rank, ranks=2, chunks=chunks)


@pytest.mark.parametrize("chunks", [2, 3, 7])
@pytest.mark.parametrize("copied", [False, True])
def test_chunks_give_the_windows_that_resident_rows_give(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chunks: int, copied: bool
) -> None:
    split = stored(monkeypatch, bucket())
    for rank in range(2):
        resident = stored_part(split, rank=rank, ranks=2, resident_mib=1, folder=None)
        assert resident.chunks == 1
        part = chunked(split, rank, tmp_path if copied else None, chunks)
        every = set(windows_of(resident))
        for epoch in range(2):
            found = windows_of(part, epoch=epoch)
            assert set(found) <= every
            assert len(set(found)) == len(found) == part.chunks * part.chunk_windows > len(every) - chunks
            for position in (1, part.chunk_windows, part.chunk_windows + 3):
                assert windows_of(part, epoch=epoch, position=position) == found[position:]
        assert windows_of(part, epoch=0) != windows_of(part, epoch=1)


def test_ranks_read_nothing_of_each_other_s_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    split = stored(monkeypatch, bucket())
    seen = [set(windows_of(stored_part(split, rank=rank, ranks=3, resident_mib=1, folder=None))) for rank in range(3)]
    assert split.windows - 3 < sum(map(len, seen)) == len(set.union(*seen))


def test_the_room_decides_how_many_chunks_there_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two chunks and what they are read with must fit; a part that fits whole stays whole, and is copied nowhere."""
    split = stored(monkeypatch, bucket())
    needed = part_bytes(split.rows / 2, split.windows // 2, 2, 2)
    found = split.read(0, split.windows // 2)
    held = sum(getattr(found, name).nbytes for name in vars(found) if name not in ("tickers", "window"))
    assert needed == pytest.approx(held, rel=0.15)
    copies: list[Any] = []
    copied = StoredSplit.copied

    def counted(*call: Any) -> StoredSplit:
        copies.append(call)
        return copied(*call)

    monkeypatch.setattr(StoredSplit, "copied", counted)

    def parts(room: float) -> Part:
        monkeypatch.setattr("app.training.part.part_bytes", lambda *sizes: needed * 2**20 / room)
        return stored_part(split, rank=0, ranks=2, resident_mib=1, folder=str(tmp_path))

    assert parts(needed).chunks == 1
    assert copies == []
    assert parts(needed / 1.01).chunks == 3
    assert copies
    assert parts(needed / 2).chunks == 4


def test_a_part_that_is_resident_is_read_from_s3_once(monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = FakeS3()
    part = stored_part(stored(monkeypatch, bucket(s3)), rank=0, ranks=2, resident_mib=1, folder=None)
    first = windows_of(part)
    s3.error = client_error("SlowDown")
    assert sorted(windows_of(part, epoch=1)) == sorted(first)

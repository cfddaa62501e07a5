"""A rank's own share of the training windows, and the order in which it takes them.

The windows of a split, in stored order, are dealt to the ranks in equal ranges: no window belongs to two. A
range that is too large for memory is cut into chunks, of which one is resident, and the next one is read
meanwhile. Chunks, and the windows within each, are shuffled anew in each epoch, on all ranks alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from app.dataset.windows import Index, WindowSet
from app.training.inputs import StoredSplit

Load = Callable[[int, int], WindowSet]
"""Reads the windows numbered from the first to before the second."""


@dataclass(frozen=True)
class Batch:
    """What one rank takes in one step: the windows numbered `chosen` (batch,) of a resident chunk."""

    chunk: WindowSet
    chosen: Index


class Part:
    """A rank's range of windows: `chunks` chunks of `chunk_windows` windows each, alike on all ranks.

    Fewer windows than there are chunks or ranks are left over at the end of a range: they are not used.
    """

    def __init__(self, load: Load, windows: int, *, rank: int, ranks: int, chunks: int = 1) -> None:
        mine = windows // ranks
        self.chunks = min(chunks, max(1, mine))
        self.chunk_windows = mine // self.chunks
        self._load = load
        self._first = rank * mine
        self._held: tuple[int, WindowSet] | None = None

    def steps_per_epoch(self, batch: int) -> int:
        """Whole batches in an epoch; the windows of a chunk that fill none wait for another shuffle."""
        return self.chunks * (self.chunk_windows // batch)

    def chunk(self, number: int) -> WindowSet:
        """One chunk; the last one that was asked for is kept."""
        if self._held is None or self._held[0] != number:
            first = self._first + number * self.chunk_windows
            self._held = number, self._load(first, first + self.chunk_windows)
        return self._held[1]

    def batches(self, *, epoch: int, seed: int, batch: int, position: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the one numbered `position` on."""
        steps = self.chunk_windows // batch
        order = np.random.default_rng([seed, epoch]).permutation(self.chunks)
        begun = position // steps if steps else self.chunks
        with ThreadPoolExecutor(1, thread_name_prefix="chunk") as reader:
            coming: Future[WindowSet] | None = None
            for place in range(begun, self.chunks):
                chunk = coming.result() if coming else self.chunk(int(order[place]))
                coming = None
                shuffled = np.random.default_rng([seed, epoch, int(order[place])]).permutation(self.chunk_windows)
                for step in range(position - begun * steps if place == begun else 0, steps):
                    yield Batch(chunk, shuffled[step * batch : (step + 1) * batch])
                    if coming is None and place + 1 < self.chunks:  # the chunk before has been let go by now
                        coming = reader.submit(self.chunk, int(order[place + 1]))


def stored_part(
    split: StoredSplit,
    *,
    rank: int,
    ranks: int,
    resident_mib: int,
    folder: str | None,
) -> Part:
    """A rank's part of a stored split.

    folder: where a part of several chunks is copied to, for it is read in each epoch; None: it is on disk already.
    """
    windows = split.windows
    mine = windows // ranks
    needed = part_bytes(split.rows / ranks, mine, len(split.spec.features), len(split.spec.horizons_min))
    room = resident_mib * 2**20
    chunks = 1 if needed <= room else math.ceil(2 * needed / room)  # two at a time: one is read meanwhile
    local = split.copied(rank * mine, (rank + 1) * mine, folder) if folder and chunks > 1 else split
    return Part(local.read, windows, rank=rank, ranks=ranks, chunks=chunks)


def part_bytes(rows: float, windows: int, features: int, horizons: int) -> float:
    """Memory of a WindowSet of so many rows and windows, as its fields are typed."""
    return rows * features * 4 + windows * (4 * 8 + horizons * 16)

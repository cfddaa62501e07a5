"""The bars of one ticker as arrays: the form between an answer and a stored table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TickerBars:
    """1-minute bars of one ticker: arrays of one length, ascending in time, no duplicates.

    ts: start of the bar, UTC epoch seconds. Prices in USD, volume in shares.
    """

    ts: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Ints

    def __len__(self) -> int:
        """The number of bars."""
        return len(self.ts)

    @property
    def prices(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Open, high, low and close."""
        return self.open, self.high, self.low, self.close

    def between(self, start_s: int, end_s: int) -> TickerBars:
        """The bars that start in [start_s, end_s), as views."""
        first, last = (int(i) for i in np.searchsorted(self.ts, (start_s, max(start_s, end_s))))
        return self.part(slice(first, last))

    def part(self, rows: slice | Mask | Ints) -> TickerBars:
        """The bars that a slice, a mask or indices select."""
        return TickerBars(
            self.ts[rows], self.open[rows], self.high[rows], self.low[rows], self.close[rows], self.volume[rows]
        )

    def same_as(self, other: TickerBars) -> bool:
        """Whether both hold the same bars, to the last bit."""
        return all(np.array_equal(a, b) for a, b in zip(self._columns(), other._columns(), strict=True))

    def _columns(self) -> tuple[Ints | Floats, ...]:
        return self.ts, *self.prices, self.volume


NO_BARS = TickerBars(*(np.array([], dtype) for dtype in ("i8", "f8", "f8", "f8", "f8", "i8")))


def latest(parts: Sequence[TickerBars]) -> TickerBars:
    """One copy of each bar, from the last part that holds it; ascending, whatever the order of the parts' rows."""
    held = [part for part in parts if len(part)]
    if not held:
        return NO_BARS
    columns = zip(*(part._columns() for part in held), strict=True)
    together = held[0] if len(held) == 1 else TickerBars(*(np.concatenate(column) for column in columns))
    if (np.diff(together.ts) > 0).all():
        return together
    # The first of equals, in time turned round, is the last one written.
    _, first = np.unique(together.ts[::-1], return_index=True)
    return together.part(len(together) - 1 - first)

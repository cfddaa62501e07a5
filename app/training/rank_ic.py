"""Rank information coefficient: whether the tickers of a minute are forecast in the right order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.dataset.features import FloatArray
from app.dataset.windows import Index

FEWEST_TICKERS = 5


class Minutes:
    """Windows grouped by the minute at which they were forecast.

    first: int64 (m,) number of each minute's first window.
    """

    def __init__(self, as_of: Index) -> None:
        """as_of: int64 (n,) epoch seconds of the windows."""
        _, self.first, self._minute, self._tickers = np.unique(
            as_of, return_index=True, return_inverse=True, return_counts=True
        )
        self._before = np.cumsum(self._tickers) - self._tickers  # windows of earlier minutes

    def rank_ic(self, predicted: FloatArray, actual: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Spearman's correlation over the tickers of each minute, float64 (m,), and where it is known, bool (m,).

        predicted, actual: (n,). Unknown is a minute with fewer than FEWEST_TICKERS, or in which all forecasts or all
        returns are the same. Equal values share their mean rank.
        """
        ours, theirs = self._ranks(predicted), self._ranks(actual)
        together, our_spread, their_spread = (
            np.bincount(self._minute, product, len(self.first)) for product in (ours * theirs, ours**2, theirs**2)
        )
        spread = our_spread * their_spread
        known = (self._tickers >= FEWEST_TICKERS) & (spread > 0)
        return np.divide(together, np.sqrt(spread), out=np.zeros(len(spread)), where=known), known

    def _ranks(self, values: FloatArray) -> FloatArray:
        """Ranks (n,) of values within their minute, centred on 0."""
        order = np.lexsort((values, self._minute))
        minute, ordered = self._minute[order], values[order]
        new = np.concatenate([[True], (np.diff(minute) != 0) | (ordered[1:] != ordered[:-1])])  # not a tie
        start = np.flatnonzero(new)
        mean_place = start + (np.diff(start, append=len(values)) - 1) / 2
        ranks = np.empty(len(values))
        ranks[order] = mean_place[np.cumsum(new) - 1]
        centred: FloatArray = ranks - (self._before + (self._tickers - 1) / 2)[self._minute]
        return centred

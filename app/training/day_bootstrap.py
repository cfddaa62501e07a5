"""95 % intervals of what was measured over windows, by drawing whole days again.

Windows of one day overlap, and stocks move together: windows are no independent observations, days nearly are.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from app.dataset.features import FloatArray
from app.dataset.windows import Index
from app.sessions import market_day, utc

Interval = tuple[float, float]

RESAMPLES = 2000
_HOUR_S = 3600
_NORMAL = 1.959964
_STUDENT = (math.nan, 12.7062, 4.3027, 3.1824, 2.7764)  # 97.5 % quantiles by degrees of freedom


class DayBootstrap:
    """Windows by their New York day, and days drawn with replacement, the same for all that is measured.

    days: how many there are.
    """

    def __init__(self, as_of: Index, seed: int) -> None:
        """as_of: int64 (n,) epoch seconds of the windows."""
        hours, of_window = np.unique(as_of // _HOUR_S, return_inverse=True)  # New York's midnight is a full hour
        dates = [market_day(utc(int(hour) * _HOUR_S)).toordinal() for hour in hours]
        numbers, of_hour = np.unique(np.array(dates, np.int64), return_inverse=True)
        self._day: Index = of_hour[of_window]
        self.days = len(numbers)
        # (resamples, days): how often a resample holds a day
        self._drawn = np.random.default_rng(seed).multinomial(self.days, np.full(self.days, 1 / self.days), RESAMPLES)

    def sums(self, values: npt.NDArray[np.generic], of: Index | slice = slice(None)) -> FloatArray:
        """Sums over each day, float64 (days,), of values (k,): one for each window that `of` numbers."""
        found: FloatArray = np.bincount(self._day[of], values.astype(np.float64), self.days).astype(np.float64)
        return found

    def interval(self, top: FloatArray, bottom: FloatArray) -> Interval | None:
        """Of the ratio sum(top) / sum(bottom), both (days,); None unless two days tell of it, and not the very same.

        The bootstrap's percentiles, their distance from the ratio stretched by what they lack with few days (with d
        days: Student's quantile over the normal one, times the root of d / (d - 1)), so that for a mean of
        normal days the interval is Student's. Without this, an interval from two days misses the truth every other
        time instead of once in twenty: Hesterberg, "What Teachers Should Know About the Bootstrap", The American
        Statistician 69(4), 2015, on percentile intervals of small samples.
        """
        days = int(np.count_nonzero(bottom))
        if days < 2:
            return None
        whole = self._drawn @ bottom
        ratio = top.sum() / bottom.sum()
        low, high = np.quantile((self._drawn @ top)[whole > 0] / whole[whole > 0], (0.025, 0.975))
        if low == high:
            return None
        stretch = _student(days - 1) / _NORMAL * math.sqrt(days / (days - 1))
        return float(ratio + (low - ratio) * stretch), float(ratio + (high - ratio) * stretch)


def _student(freedom: int) -> float:
    """Student's 97.5 % quantile, to 1 %: from 5 degrees of freedom by Abramowitz and Stegun 26.7.5."""
    if freedom < len(_STUDENT):
        return _STUDENT[freedom]
    return _NORMAL + 2.3723 / freedom + 2.8225 / freedom**2

"""The data that all arms of the training benchmark train on: seeded, of a real dataset's size and shape."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

WINDOW_MIN = 60
FEATURES = 2
_SESSION_MIN = 390
_HORIZON_MIN = 5
_BY_SESSION = _SESSION_MIN - WINDOW_MIN - _HORIZON_MIN + 1
"""Windows of one ticker's session."""


@dataclass(frozen=True)
class Synthetic:
    """rows: scaled features, float32 (rows, 2); starts: int64 (n,) into rows; targets: float32 (n,)."""

    rows: Floats
    starts: npt.NDArray[np.int64]
    targets: Floats

    def materialised(self) -> Floats:
        """Every window for itself: float32 (n, 60, 2), as `fit` and torch take them."""
        view = np.lib.stride_tricks.sliding_window_view(self.rows, WINDOW_MIN, axis=0)
        return np.ascontiguousarray(view[self.starts].transpose(0, 2, 1))


def make_data(windows: int, seed: int) -> Synthetic:
    """So many windows of normal features; the target leans on the last five returns."""
    rng = np.random.default_rng(seed)
    sessions = math.ceil(windows / _BY_SESSION)
    rows = rng.standard_normal((sessions * _SESSION_MIN, FEATURES), dtype=np.float32)
    starts = (np.arange(sessions)[:, None] * _SESSION_MIN + np.arange(_BY_SESSION)).ravel()[:windows]
    last = starts + WINDOW_MIN - 1
    signal = np.mean([rows[last - minutes, 0] for minutes in range(_HORIZON_MIN)], axis=0)
    noise = rng.standard_normal(windows, dtype=np.float32)
    return Synthetic(rows, starts, (signal + noise).astype(np.float32))

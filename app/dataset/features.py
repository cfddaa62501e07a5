"""The features of one minute: one function for training and for serving, causal by construction.

A row needs the minute's own bar and the close before it, nothing later. Rows are float32 and not
scaled; `scale` is applied by whoever feeds the model, with the numbers of the training days.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.contract import FEATURES

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]

FILLED_ROW = np.zeros(len(FEATURES), np.float32)
"""The row of a minute in which nothing traded: no return, no volume."""


def minute_features(close: FloatArray, previous_close: FloatArray, volume: FloatArray) -> Rows:
    """Feature rows of observed minutes, elementwise.

    close, previous_close: (n,) USD; the close before a session's first bar is that bar's open, so that
    no overnight move enters. volume: (n,) shares, NaN where it is not to be trusted.
    Returns float32 (n, len(FEATURES)): log return over the minute; log(1 + volume), NaN as given.
    """
    return np.stack([np.log(close / previous_close), np.log1p(volume)], axis=-1).astype(np.float32)


def scale(rows: Rows, mean: Rows, std: Rows) -> Rows:
    """Standardise feature rows: (..., features) with (..., features) broadcast; NaN becomes 0, the mean.

    Elementwise in float32, so that one row scales to the same bits wherever it stands.
    """
    scaled: Rows = np.nan_to_num((rows - mean) / std, nan=0.0, copy=False)
    return scaled

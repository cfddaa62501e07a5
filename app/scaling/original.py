"""What the 2021 system measured, as it was published: its ingest, its training and its predictions."""

from __future__ import annotations

from typing import Final

from app.scaling.cases import Case, Row, Times

INGEST_HEADS: Final = ("sequential", "1 process", "2", "4", "8")
INGEST_S: Final = (
    ("50 tickers, no threads", (903.6, 1088.7, 608.4, 299.4, 170.2)),
    ("50 tickers, threads", (212.2, 210.7, 111.9, 59.8, 35.9)),
    ("500 tickers, threads", (2153.9, 2238.4, 1114.9, 567.4, 313.9)),
)
"""Seconds by number of processes, for 30 days on 8 virtual cores against Yahoo, about 0.6 s a call."""

PREDICTION_S: Final = {4: 0.18, 8: 0.33, 10: 0.53, 16: 0.76, 32: 1.46, 64: 2.78, 128: 5.55, 256: 10.99, 500: 21.64}
"""Seconds of an update by its tickers."""

EPOCH_SEQUENCES: Final = 775_248
"""Of its data: seconds per epoch are reckoned for as many, so that they compare with its tables."""
_EPOCH_S: Final = {
    **{(nodes, 1, 32): seconds for nodes, seconds in {1: 149.2, 2: 107.6, 3: 83.3, 4: 72.5}.items()},
    **{(1, 1, batch): seconds for batch, seconds in {64: 71.0, 96: 49.2, 128: 37.5}.items()},
    **{(1, 2, batch): seconds for batch, seconds in {32: 117.2, 64: 58.2, 128: 32.2, 256: 19.2}.items()},
}
"""Seconds per epoch by nodes, M60 GPUs of a node and batch a GPU."""


def training_rows() -> list[Row]:
    """Its trainings; steps are reckoned from its epochs: the step times that it showed were not its own."""
    return [row_at(Case(*shape), EPOCH_SEQUENCES / seconds) for shape, seconds in _EPOCH_S.items()]


def row_at(case: Case, sequences_per_s: float) -> Row:
    """A case that trains so fast, with an epoch as long as the original's."""
    times = Times(EPOCH_SEQUENCES / sequences_per_s, case.effective_batch / sequences_per_s, sequences_per_s)
    return Row(case, times)

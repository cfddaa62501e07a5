"""Fixtures that several suites share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_REAL_BARS = "../shared/data/minute_bars/real_1m_2026-03-12_to_2026-03-24.parquet"


@pytest.fixture(scope="session")
def real_bars_path() -> Path:
    """A Parquet file of real minute bars: STOCKFLOW_REAL_BARS, or the one beside the repository; skips without."""
    named = os.environ.get("STOCKFLOW_REAL_BARS")
    path = Path(named) if named else Path(__file__).parents[1] / _REAL_BARS
    if not path.is_file():
        pytest.skip("no real bars here: name a file in STOCKFLOW_REAL_BARS")
    return path

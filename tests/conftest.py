"""Fixtures that several suites share."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
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


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A loopback port on which somebody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])

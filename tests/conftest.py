"""Fixtures that several suites share."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from app import contract

settings.register_profile(
    "shared machine", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared machine")

_REAL_BARS = "../shared/data/minute_bars/real_1m_2026-03-12_to_2026-03-24.parquet"
_TOGETHER = ("tests/pipeline", "tests/infra")
"""Folders whose files share what takes long to make: one worker takes all of a folder."""
_APART = tuple(
    f"tests/pipeline/test_{name}.py"
    for name in (
        *("run", "docs", "up", "permissions", "bench_training", "precision", "clients_agree", "yahoo_server"),
        "doctor",
    )
)
"""The files of these folders that share nothing of it."""
_FIRST = ("tests/pipeline", "tests/embedded", "tests/infra", *_APART)
"""The longest begin, beside those that mostly wait; short files fill what time is left."""


def pytest_configure(config: pytest.Config) -> None:
    """No settings file of the checkout is for its tests, nor for what they start."""
    os.environ[contract.ENV_SETTINGS_FILE] = ""


def _shared_by(nodeid: str) -> str:
    """The folder, or the file, of which one worker takes all tests."""
    file = nodeid.partition("::")[0]
    folder = file.rpartition("/")[0]
    return folder if folder in _TOGETHER and file not in _APART else file


def _turn(item: pytest.Item) -> int:
    whole = _shared_by(item.nodeid)
    name = whole if whole in _FIRST else whole.rpartition("/")[0]
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


class _ByWhatIsShared(LoadScopeScheduling):  # type: ignore[misc] # xdist is not typed
    """xdist's own groups are made from marks, but not with pytest 9.2 (pytest-xdist issue 1386)."""

    def _split_scope(self, nodeid: str) -> str:
        return _shared_by(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """For `make test`, whose workers share the tests."""
    return _ByWhatIsShared(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers take the tests in another order than one process does."""
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)


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

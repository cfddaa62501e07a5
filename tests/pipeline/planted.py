"""A market of random walks for the training tests: prices that tell nothing, and a volume that tells the past alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from app import contract
from app.dataset.build import build_dataset
from app.settings import DatasetSettings
from app.storage import Bucket
from app.tables import put_table
from tests.fakes import make_bars, make_sessions

HORIZONS_MIN = (1, 5)
FEATURES = ("log_return", "log_volume", "session_return")
SESSIONS = make_sessions(*[contract.SESSION_MINUTES] * 6)
_TICKERS = 30
_STEPS_OF_VOLUME = 300.0


def store_planted(models: Bucket, run_id: str) -> None:
    """A run's dataset of these bars: three days to train on, one to validate, two to test."""
    dataset = build_dataset(planted_bars(), SESSIONS, DatasetSettings(horizons_min=HORIZONS_MIN, validation_days=1))
    for name, table in dataset.splits.items():
        put_table(models, contract.dataset_key(run_id, name), table, [group.rows for group in dataset.groups[name]])
    models.put_json(contract.dataset_spec_key(run_id), dataset.report())


def planted_bars() -> pa.Table:
    """Bars whose volume says how the price moved in the five minutes before, and nothing else.

    Five minutes after a decision it is what the decision wanted to know; until then no bar tells.
    """
    bars = []
    for number in range(_TICKERS):
        for session in SESSIONS:
            random = np.random.default_rng([number, session.day.toordinal()])
            path = random.normal(0, 0.001, session.minutes).cumsum()
            moved = np.zeros(session.minutes)
            moved[5:] = path[5:] - path[:-5]
            volume = 5000 * np.exp(_STEPS_OF_VOLUME * moved)
            bars.append(
                make_bars(f"T{number:02d}", session, closes=100 * np.exp(path), volumes=volume.astype(np.int64))
            )
    return pa.concat_tables(bars)

"""A dataset is the same from a folder that mirrors it as from the bucket."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app import contract
from app.dataset.run import run_dataset
from app.errors import StorageError
from app.ingest.plan import make_plan
from app.settings import Settings
from app.storage import Bucket
from app.tables import put_table
from app.training.inputs import DatasetFolder, read_inputs
from tests.fakes import FakeS3, bucket, make_sessions, market_bars

SESSIONS = make_sessions(*[140] * 4)


@pytest.fixture
def models() -> Bucket:
    """A model bucket with the dataset of run r."""
    market, models = bucket(FakeS3()), bucket(FakeS3())
    market.put_json(contract.plan_key("r"), make_plan("r", ["A", "B"], SESSIONS, shards=1, request_days=7).to_json())
    market.put_json(contract.coverage_key("r"), {"days": [session.day.isoformat() for session in SESSIONS]})
    for session in SESSIONS:
        put_table(market, contract.bars_key(session.day, "s"), market_bars(["A", "B"], [session]))
    run_dataset("r", market, models, Settings().dataset, lambda done, total, note: None)
    return models


def test_a_folder_gives_what_the_bucket_gives(models: Bucket, tmp_path: Path) -> None:
    for key in models.keys(f"{contract.DATASETS_PREFIX}r/"):
        (tmp_path / key.rpartition("/")[2]).write_bytes(models.get(key))
    ours = read_inputs(DatasetFolder(str(tmp_path)), "r", ("train", "test"))
    theirs = read_inputs(models, "r", ("train", "test"))
    assert (ours.spec, ours.settings) == (theirs.spec, theirs.settings)
    assert list(ours.splits) == ["train", "test"]
    for name, windows in ours.splits.items():
        np.testing.assert_array_equal(windows.rows, theirs.splits[name].rows)
        np.testing.assert_array_equal(windows.starts, theirs.splits[name].starts)


def test_a_file_that_is_not_in_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"spec\.json cannot be read .*: the channel must mirror datasets/r/$"):
        read_inputs(DatasetFolder(str(tmp_path)), "r", ("train",))

"""The folder of a run's results: what it may replace, and that it is replaced whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import contract
from app.errors import SettingsError, StorageError
from embedded.summary import check_run_folder, write_run_folder
from tests.fakes import FakeS3, bucket


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "work" / "logs"
    folder.mkdir(parents=True)
    (folder / "ingest.log").write_text("said\n")
    return folder


def test_an_absent_an_empty_and_an_earlier_run_s_folder_may_be_replaced(tmp_path: Path) -> None:
    empty, earlier = tmp_path / "empty", tmp_path / "earlier"
    empty.mkdir()
    earlier.mkdir()
    (earlier / "summary.json").touch()
    for folder in (tmp_path / "new" / "run", empty, earlier):
        assert check_run_folder(folder) == folder


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SettingsError, match="holds something else than an earlier run: name a new folder"):
        check_run_folder(tmp_path)
    with pytest.raises(SettingsError, match="holds something else"):
        check_run_folder(tmp_path / "thesis.txt")


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_the_folder_one_stands_in_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="holds the folder that you stand in"):
        check_run_folder(Path(name))


def test_a_folder_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(SettingsError, match="cannot be written"):
        check_run_folder(Path("/proc/x/y"))


def test_results_take_the_place_of_an_earlier_run_s(tmp_path: Path, logs: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "old.txt").touch()
    s3 = FakeS3()
    shared = bucket(s3)
    for key in (contract.plan_key("r"), contract.LATEST_PREDICTIONS_KEY, contract.warm_state_key("r")):
        shared.put(key, b"{}")
    write_run_folder(out, {"status": "succeeded"}, {"market": shared, "predictions": shared}, "r", logs, {})
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert found == ["iam.json", "latest.json", "logs/ingest.log", "plan.json", "summary.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "work"]


def test_an_earlier_run_s_results_stay_when_the_new_ones_cannot_be_read(tmp_path: Path, logs: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "summary.json").write_text("old")
    gone = bucket(FakeS3(error=ValueError("gone")))
    with pytest.raises((ValueError, StorageError)):
        write_run_folder(out, {}, {"market": gone}, "r", logs, {})
    assert (out / "summary.json").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "work"]

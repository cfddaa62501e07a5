"""Where a stream keeps its checkpoint."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from app.serving.checkpoint import checkpoint_uri


@pytest.mark.parametrize(
    ("parent", "uri"),
    [
        ("/var/streams", "file:///var/streams/s-1"),
        ("/var/my streams/", "file:///var/my streams/s-1"),
        ("hdfs:///user/hadoop/streams", "hdfs:///user/hadoop/streams/s-1"),
        ("hdfs://node:8020/streams/", "hdfs://node:8020/streams/s-1"),
        ("file:///var/streams", "file:///var/streams/s-1"),
        (None, f"file://{tempfile.gettempdir()}/stockflow-streams/s-1"),
    ],
)
def test_a_checkpoint_lies_below_a_folder_or_a_uri(parent: str | None, uri: str) -> None:
    assert checkpoint_uri(parent, "s-1") == uri


def test_a_relative_folder_is_one_of_the_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert checkpoint_uri("streams", "s-1") == f"file://{tmp_path}/streams/s-1"

"""What a Spark worker forgets so that its next task begins at once."""

from __future__ import annotations

import sys
import zipfile
from importlib import import_module, invalidate_caches
from pathlib import Path

import pytest

from app.serving.worker import forget_archives


def test_an_archive_on_the_path_is_forgotten_and_still_imported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "spark.zip"
    with zipfile.ZipFile(archive, "w") as written:
        for name in ("zipped_first", "zipped_second"):
            written.writestr(f"{name}.py", "ANSWER = 42\n")
    monkeypatch.syspath_prepend(str(archive))
    assert import_module("zipped_first").ANSWER == 42
    assert str(archive) in sys.path_importer_cache
    forget_archives()
    assert str(archive) not in sys.path_importer_cache
    invalidate_caches()
    assert import_module("zipped_second").ANSWER == 42

"""Where predictions are read: a bucket, or a folder with what `stockflow run` copied from one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from app import contract
from app.errors import ObjectMissing, SettingsError, StorageError
from app.storage import Bucket, ObjectInfo

Source = Bucket | str | Path
"""A bucket, its name, or a folder: as a path, or as text with a slash, which no bucket's name has."""

RUN_SUMMARY: Final = "summary.json"
"""By this file the folder of a run is known; it tells whose `runs/<run>/` lies at its top."""
_COPIED_AS_THEY_ARE = (contract.MODELS_PREFIX, contract.DATASETS_PREFIX, contract.PREDICTIONS_PREFIX)


class RunFolder(Bucket):
    """A folder read by the keys of the buckets that `stockflow run` copied into it; S3 is never asked.

    What it reads below `runs/<run>/` of the run itself lies at its top (embedded.summary).
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SettingsError(f"{folder} is no folder: name that of a run, or a bucket, which has no / in its name")
        super().__init__(str(folder), client=object())
        self._folder = folder
        self.run_id = _run_of(folder)
        self._own = f"{contract.RUNS_PREFIX}{self.run_id}/" if self.run_id else ""

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        """The whole file, and no ETag: a run's folder is replaced, never changed."""
        with self.open(key) as file:
            return file.read(), ""

    def open(self, key: str) -> BinaryIO:
        """The file of an object; ObjectMissing when there is none."""
        path = self._folder / self._place(key)
        try:
            return path.open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise ObjectMissing(self.name, key) from None
        except OSError as exc:
            raise StorageError(f"{path} cannot be read ({exc.strerror})") from exc

    def exists(self, key: str) -> bool:
        """Whether there is a file under this very key."""
        return (self._folder / self._place(key)).is_file()

    def objects(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """Files whose keys begin with `prefix`, in the order of their keys, those after `start_after` only."""
        top = self._folder / (prefix.partition("/")[0] if prefix.startswith(_COPIED_AS_THEY_ARE) else "")
        files = (Path(folder, name) for folder, _, names in os.walk(top) for name in names)
        keys = {self._key(path.relative_to(self._folder).as_posix()): path for path in files}
        for key in sorted(key for key in keys if key.startswith(prefix) and key > start_after):
            told = keys[key].stat()
            yield ObjectInfo(key, datetime.fromtimestamp(told.st_mtime, UTC), told.st_size)

    def _place(self, key: str) -> str:
        return key.removeprefix(self._own)

    def _key(self, place: str) -> str:
        others = (*_COPIED_AS_THEY_ARE, contract.RUNS_PREFIX, contract.LATEST_PREDICTIONS_KEY)
        return place if place.startswith(others) else self._own + place


def open_source(source: Source | None) -> Bucket:
    """The bucket or the folder to read predictions from, by default that of STOCKFLOW_PREDICTIONS_BUCKET."""
    named = source or os.environ.get(contract.ENV_PREDICTIONS_BUCKET)
    if not named:
        raise SettingsError(
            f"name the bucket of predictions: set {contract.ENV_PREDICTIONS_BUCKET} or pass bucket=; after `make run`"
            ' the folder will do: bucket="./build/run"'
        )
    return open_bucket(named)


def open_bucket(named: Source) -> Bucket:
    """A bucket, or a folder where a path is named."""
    if isinstance(named, Bucket):
        return named
    return RunFolder(Path(named).expanduser()) if isinstance(named, Path) or "/" in named else Bucket(named)


def place_of(source: Bucket, key: str) -> str:
    """Where an object lies, for people."""
    return f"{source.name}/{key}" if isinstance(source, RunFolder) else f"s3://{source.name}/{key}"


def _run_of(folder: Path) -> str:
    """The run whose folder it is; empty for any other folder, such as a copy of a bucket."""
    try:
        return str(json.loads((folder / RUN_SUMMARY).read_bytes())["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""

"""What a rank trains on: the run's dataset, from the model bucket or from a folder that mirrors it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from app import contract
from app.dataset.spec import Spec
from app.dataset.windows import WindowSet, window_set
from app.errors import StorageError
from app.settings import DatasetSettings
from app.storage import Bucket
from app.tables import get_table


class DatasetFolder(Bucket):
    """A folder that mirrors `datasets/<run>/`, read by the keys of the model bucket; S3 is never asked."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder, client=object())

    def get(self, key: str) -> bytes:
        """The file named as the last part of the key; StorageError when it cannot be read."""
        path = Path(self.name, key.rpartition("/")[2])
        try:
            return path.read_bytes()
        except OSError as exc:
            raise StorageError(
                f"{path} cannot be read ({exc.strerror}): the channel must mirror {key.rpartition('/')[0]}/"
            ) from exc


@dataclass(frozen=True)
class Inputs:
    """The dataset's spec, the settings it was made with and the windows of the splits that were asked for."""

    spec: Spec
    settings: DatasetSettings
    splits: dict[str, WindowSet]


def read_inputs(source: Bucket, run_id: str, splits: Iterable[str]) -> Inputs:
    """Read the dataset of a run. source: the model bucket or a DatasetFolder."""
    stored = source.get_json(contract.dataset_spec_key(run_id))
    spec, settings = Spec.from_json(stored), DatasetSettings.model_validate(stored["settings"])
    windows = {
        name: window_set(get_table(source, contract.dataset_key(run_id, name)), spec, settings.max_filled_share)
        for name in splits
    }
    return Inputs(spec, settings, windows)

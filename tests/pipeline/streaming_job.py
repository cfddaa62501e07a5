"""A stream that is running, and what its run has left in S3 so far."""

from __future__ import annotations

import random
import time
from contextlib import suppress

import pandas as pd
import psutil
import pyarrow as pa

from app import contract
from app.tables import get_table
from tests.pipeline.conftest import World


def predictions(run: World) -> pd.DataFrame:
    """All predictions of a run, as a consumer that only lists S3 sees them."""
    tables = [get_table(run.predictions, key) for key in prediction_keys(run)]
    frame = pa.concat_tables(tables).to_pandas()
    return frame.sort_values(["ticker", "as_of", "horizon_min"], ignore_index=True)


def prediction_keys(run: World) -> list[str]:
    """Keys of a run's predictions."""
    keys = run.predictions.keys(contract.PREDICTIONS_PREFIX)
    return [key for key in keys if contract.predictions_run(key) == run.run_id]


def assert_same_predictions(run: World, other: World) -> None:
    """None lost, none twice, each the same but for when it was made."""
    ours, theirs = predictions(run), predictions(other)
    columns = [name for name in theirs if name != "produced_at"]
    pd.testing.assert_frame_equal(ours[columns], theirs[columns])


class StreamingJob:
    """`stockflow serve`, started."""

    def __init__(self, run: World, *arguments: str) -> None:
        self.run = run
        self.process = run.popen("serve", *arguments)

    def wait_for_rows(self, rows: int, within_s: float = 180) -> int:
        """Until the run has so many predictions, or the stream has ended; returns how many there are."""
        deadline = time.monotonic() + within_s
        while (found := sum(len(get_table(self.run.predictions, key)) for key in prediction_keys(self.run))) < rows:
            if self.process.poll() is not None:
                break
            assert time.monotonic() < deadline, f"{found} of {rows} predictions"
            time.sleep(0.05)
        return found

    def kill(self, victim: str, choose: random.Random, within_s: float = 120) -> bool:
        """kill -9 of the driver, of Java or of one of the Python processes that Java started, once there is one.

        False when there was none any more.
        """
        deadline = time.monotonic() + within_s
        while not (victims := self._victims(victim)) and self.process.poll() is None:
            assert time.monotonic() < deadline, f"no {victim} was started"
            time.sleep(0.05)
        with suppress(psutil.NoSuchProcess, IndexError):  # it has just ended of itself
            choose.choice(victims).kill()
            return True
        return False

    def _victims(self, victim: str) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            driver = psutil.Process(self.process.pid)
            if victim == "driver":
                return [driver]
            java = [each for each in driver.children(recursive=True) if each.name() == "java"]
            return java if victim == "jvm" else [child for each in java for child in each.children(recursive=True)]
        return []

    def ended(self) -> tuple[int, str]:
        """Its status and standard error, once nothing is left of it."""
        family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        _, errors = self.process.communicate(timeout=200)
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive  # the feed, Java and its workers go with the driver
        return self.process.returncode, errors

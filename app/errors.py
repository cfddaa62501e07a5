"""The errors of stockflow: one root, flat children.

    StockflowError
    ├── SettingsError      a setting, a flag or an environment variable is wrong
    ├── StorageError       S3 does not answer, refuses, or lacks an object
    ├── UniverseError      the list of tickers is empty or names an unknown one
    ├── YahooError         Yahoo refuses, fails or answers nonsense
    ├── BadBars            bars break their schema: missing columns, NaN, duplicates, order
    ├── TooFewBars         not enough bars to cut one window
    ├── TrainingError      mpirun, a rank or the model failed
    ├── ServingError       the stream failed
    ├── MissingProgram     a system program (mpirun, java) is not installed
    ├── FleetBusy          another execution of the state machine has the ingest fleet
    └── UnfitMachine       `stockflow doctor` found what a run would fail at

Each message is one line that says what is wrong and what to change. The command line prints it and
ends with the class's `exit_code`; anything else is a bug and shows its traceback.
"""

from __future__ import annotations

from typing import Any


class StockflowError(Exception):
    """Root of all errors that a person can act on."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive the way from a worker process: by message and attributes, not by calling the constructor again."""
        return _restore, (type(self), self.args, vars(self))


def _restore(kind: type[StockflowError], args: tuple[Any, ...], attributes: dict[str, Any]) -> StockflowError:
    error = kind.__new__(kind, *args)
    vars(error).update(attributes)
    return error


class SettingsError(StockflowError):
    """A setting, a flag or an environment variable has a wrong value."""

    exit_code = 2


class StorageError(StockflowError):
    """S3 does not answer, refuses the call, or lacks an object."""

    exit_code = 3


class ObjectMissing(StorageError):
    """An object that an earlier phase should have written is not there."""

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__(f"s3://{bucket}/{key} does not exist: run the phase that writes it first")
        self.bucket = bucket
        self.key = key


class ObjectChanged(StorageError):
    """Somebody else wrote the object between the reading and the writing of it, or between two parts of its reading."""

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__(f"s3://{bucket}/{key} was changed by somebody else meanwhile: it is left as it is; try again")


class UniverseError(StockflowError):
    """The list of tickers is empty, malformed or names tickers that Yahoo does not know."""

    exit_code = 4


class YahooError(StockflowError):
    """Yahoo refuses (429), fails or answers something that is not bars."""

    exit_code = 5


class BadBars(StockflowError):
    """Bars break their schema: missing columns, NaN, duplicates, wrong order, non-positive prices."""

    exit_code = 6


class TooFewBars(StockflowError):
    """There are not enough bars to cut one window."""

    exit_code = 6


class TrainingError(StockflowError):
    """mpirun, a rank or the model failed."""

    exit_code = 7


class ServingError(StockflowError):
    """The stream or its feed failed."""

    exit_code = 8


class AlreadyServed(ServingError):
    """A run is served once: its predictions are never scored again under other keys."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id} has been served: start a new run id")
        self.run_id = run_id


class MissingProgram(StockflowError):
    """A system program is not installed."""

    exit_code = 9

    def __init__(self, program: str, package: str) -> None:
        super().__init__(f"{program} is not installed or not on PATH: type `apt-get install {package}`")
        self.program = program
        self.package = package


class FleetBusy(StockflowError):
    """An execution that started earlier has the ingest fleet, which all executions share."""

    exit_code = 11


class UnfitMachine(StockflowError):
    """`stockflow doctor` found what a run would fail at."""

    exit_code = 12

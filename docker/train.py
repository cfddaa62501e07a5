"""What SageMaker's training toolkit starts on every rank: ``python -m mpi4py train.py``.

A variable of a training job holds at most 512 characters, too few for all settings. They come as a
hyperparameter instead, which the toolkit turns into a variable of its own. What the rank that fails first says about
it goes into the file from which SageMaker takes a job's FailureReason.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from app import contract

_REASON = "rank "
"""How a rank begins the line that says why it ends."""


class Stderr:
    """Standard error that writes a rank's reason into a file too, unless another rank's is there.

    At once, and not at the end: a watchdog ends a rank without any.
    """

    def __init__(self, stream: TextIO, reason: Path) -> None:
        self._stream, self._reason = stream, reason

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, and note a reason."""
        if text.startswith(_REASON):
            with contextlib.suppress(OSError), self._reason.open("x", encoding="utf-8") as file:
                file.write(text)
        return self._stream.write(text)


if __name__ == "__main__":
    if settings := os.environ.get(contract.ENV_HYPERPARAMETER_SETTINGS):
        os.environ[contract.ENV_SETTINGS] = settings
    if folder := os.environ.get(contract.ENV_OUTPUT_FOLDER):
        sys.stderr = Stderr(sys.stderr, Path(folder, "failure"))
    from app.training.worker import main

    sys.exit(main())

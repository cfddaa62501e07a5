"""What SageMaker's training toolkit starts on every rank: ``python -m mpi4py train.py``.

A variable of a training job holds at most 512 characters, too few for all settings. They come as a
hyperparameter instead, which the toolkit turns into a variable of its own.
"""

from __future__ import annotations

import os
import sys

from app import contract

if __name__ == "__main__":
    if settings := os.environ.get(contract.ENV_HYPERPARAMETER_SETTINGS):
        os.environ[contract.ENV_SETTINGS] = settings
    from app.training.worker import main

    sys.exit(main())

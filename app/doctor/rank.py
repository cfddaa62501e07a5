"""What `mpirun` starts twice for `stockflow doctor`: ``python -m app.doctor.rank``."""

from __future__ import annotations

import json
import os
import sys

from app import contract


def main() -> int:
    """Add up the ranks' numbers, from 1, on the device that training would take; rank 0 tells the sum."""
    try:
        import horovod.tensorflow as hvd  # noqa: PLC0415  that they cannot be imported is told in a line too
        import tensorflow as tf  # noqa: PLC0415

        from app.training.device import use_own_device  # noqa: PLC0415

        hvd.init()
        use_own_device()
        total = float(hvd.allreduce(tf.constant(hvd.rank() + 1.0), op=hvd.Sum, name="doctor"))
        if hvd.rank() == 0:
            print(json.dumps({"ranks": hvd.size(), "sum": total}), flush=True)
        hvd.shutdown()
    except Exception as exc:
        print(
            f"rank {os.environ.get(contract.ENV_RANK, '0')}: {type(exc).__name__}: {exc}", file=sys.stderr, flush=True
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
from typing import Any


def describe_machine() -> dict[str, Any]:
    """Cores, load and versions, as stored beside the figures."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),  # of the last minute; far more than 1 means that others were at work
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }

"""The checkout: images, Lambdas and the EMR environment are made from its files, settings begin with its cdk.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def written_context() -> dict[str, Any]:
    """The context of cdk.json, which the CDK's command line hands over by itself."""
    context: dict[str, Any] = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))["context"]
    return context

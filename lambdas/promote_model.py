"""Lets the model that the execution trained take over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from app import contract
from app.clock import system_clock
from app.storage import Bucket
from app.training.gate import promote


def handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """The order with the decision under `gate` in; what `models/current.json` holds then out."""
    models = Bucket(os.environ[contract.ENV_MODEL_BUCKET])
    gate = event["gate"]
    return promote(models, event["run_id"], gate["model_id"], system_clock(), serving=gate["serving"])

"""Whether the model that the execution trained may take over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from app import contract
from app.clock import system_clock
from app.storage import Bucket
from app.training.gate import decide


def handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """The order in, the decision out: `promote`, `reason`, what it rests on, and which model serves until then."""
    models = Bucket(os.environ[contract.ENV_MODEL_BUCKET])
    return decide(models, event["run_id"], event["settings"]["gate"]["min_skill"], system_clock()).to_json()

"""Whether the execution's predictions are where a consumer looks for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from app import contract
from app.storage import Bucket
from app.workflow.verify import verify_predictions


def handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """The order in; how many predictions and objects, of which day and model, out."""
    market, predictions = (
        Bucket(os.environ[name]) for name in (contract.ENV_MARKET_BUCKET, contract.ENV_PREDICTIONS_BUCKET)
    )
    return verify_predictions(event["run_id"], market, predictions)

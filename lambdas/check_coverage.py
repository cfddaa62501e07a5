"""After the ingest fleet: what every ticker got, and whether that is enough to go on."""

from __future__ import annotations

import os
from typing import Any

from app import contract
from app.clock import system_clock
from app.metrics import emitter
from app.storage import Bucket
from app.workflow.ingestion import check_coverage


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Join and judge the manifests of the order's run; returns the coverage without its tickers."""
    return check_coverage(event, Bucket(os.environ[contract.ENV_MARKET_BUCKET]), emitter(os.environ), system_clock)

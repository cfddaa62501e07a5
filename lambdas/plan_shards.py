"""Before the ingest fleet: who fetches what, and how many instances that takes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from app import contract
from app.storage import Bucket
from app.workflow.ingestion import plan_shards
from app.workflow.session_table import SessionTable

_HERE = Path(__file__).parent


def handler(event: dict[str, Any], context: object) -> dict[str, int]:
    """Write the plan of the order; returns the numbers of shards, instances, tickers and sessions."""
    defaults = json.loads((_HERE / "defaults.json").read_text(encoding="utf-8"))
    market, models = (Bucket(os.environ[name]) for name in (contract.ENV_MARKET_BUCKET, contract.ENV_MODEL_BUCKET))
    return plan_shards(event, market, models, SessionTable.load(_HERE / "sessions.json"), defaults["fleet"])

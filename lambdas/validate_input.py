"""The machine's first state: checks and completes what the execution is asked for."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import boto3

from app import contract
from app.clock import clock_from_text
from app.ingest.universe import fetch_sp500
from app.storage import Bucket
from app.workflow.fleet import refuse_busy_fleet
from app.workflow.order import make_order
from app.workflow.session_table import SessionTable

_HERE = Path(__file__).parent


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """The order for `input` of `execution` of `machine`; FleetBusy when an earlier one has the deployment's fleet."""
    order = make_order(
        event["input"],
        event["execution"]["id"],
        event["machine"],
        defaults=json.loads((_HERE / "defaults.json").read_text(encoding="utf-8")),
        schema=json.loads((_HERE / "settings_schema.json").read_text(encoding="utf-8")),
        table=SessionTable.load(_HERE / "sessions.json"),
        models=Bucket(os.environ[contract.ENV_MODEL_BUCKET]),
        now=clock_from_text(os.environ.get(contract.ENV_NOW))(),
        sp500=partial(fetch_sp500, os.environ.get(contract.ENV_SP500_URL)),
    )
    has_fleet = contract.ENV_FLEET_GROUP in os.environ  # else Batch makes instances for whoever needs them
    if has_fleet and order["phases"]["ingest"] and not order["closed"]:
        refuse_busy_fleet(boto3.client("stepfunctions"), order["machine"], order["execution"])
    return order

"""Which executions have the ingest fleet: all executions of a state machine share one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from app.errors import FleetBusy, SettingsError
from app.workflow.names import execution_name
from app.workflow.order import asked_phases


def refuse_busy_fleet(states: Any, machine_arn: str, execution_arn: str) -> None:
    """Raises FleetBusy while an execution that started before this one, and ingests, is running.

    states: boto3's Step Functions client. Its list of executions can lag a few seconds behind.
    """
    mine = (states.describe_execution(executionArn=execution_arn)["startDate"], execution_arn)
    for arn, started in ingesting_elsewhere(states, machine_arn, execution_arn):
        if (started, arn) < mine:
            raise FleetBusy(
                f"execution {execution_name(arn)} has the ingest fleet since"
                f" {started.astimezone(UTC):%Y-%m-%d %H:%M} UTC: wait for its end, or stop it"
            )


def ingesting_elsewhere(states: Any, machine_arn: str, execution_arn: str) -> list[tuple[str, datetime]]:
    """ARN and start of the other executions of the state machine that are running and ingest, oldest first.

    One whose input cannot be read counts: it may have the fleet.
    """
    pages = states.get_paginator("list_executions").paginate(stateMachineArn=machine_arn, statusFilter="RUNNING")
    running = [(e["executionArn"], e["startDate"]) for page in pages for e in page["executions"]]
    found = [
        (arn, started)
        for arn, started in running
        if arn != execution_arn and _ingests(states.describe_execution(executionArn=arn).get("input", "{}"))
    ]
    return sorted(found, key=lambda execution: (execution[1], execution[0]))


def _ingests(text: str) -> bool:
    try:
        return "ingest" in asked_phases(json.loads(text))
    except (ValueError, SettingsError):
        return True

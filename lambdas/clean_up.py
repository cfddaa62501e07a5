"""Releases what an execution holds: called by the state machine's catch-all, and after an abort by EventBridge."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import boto3

from app.workflow.clean_up import Held, clean_up


def handler(event: Mapping[str, Any], context: object) -> dict[str, list[str]]:
    """`execution` and `machine`, or EventBridge's event with both ARNs, in; what was released out."""
    detail = event.get("detail") or {"executionArn": event["execution"], "stateMachineArn": event["machine"]}
    return clean_up(detail["executionArn"], detail["stateMachineArn"], Held.from_environ(os.environ), boto3.client)

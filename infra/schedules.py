"""Executions by the clock of New York, on days that the exchange opens; disabled unless asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws_cdk import TimeZone
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_scheduler_targets as targets
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from app import contract
from infra.settings import ScheduleSettings


class Schedules(Construct):
    """Collect bars after the close, so that history grows past Yahoo's 30 days; start serving before the open.

    The clock knows weekdays only. Holidays are told by the exchange calendar in the machine's first state, which
    ends such an execution at once; the length of a half day is the calendar's too.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: ScheduleSettings, machine: sfn.StateMachine
    ) -> None:
        super().__init__(scope, construct_id)
        live = {"settings": {"serving": {"feed": "live"}}}
        for name, at, order in (
            ("Collect", settings.collect_at, {"phases": ["ingest"]}),
            ("Serve", settings.serve_at, {"phases": ["serve"], **live}),
        ):
            self._schedule(name, at, order, machine, enabled=settings.enabled)

    def _schedule(
        self, name: str, at: str, order: Mapping[str, Any], machine: sfn.StateMachine, *, enabled: bool
    ) -> None:
        hour, _, minute = at.partition(":")
        scheduler.Schedule(
            self,
            name,
            schedule=scheduler.ScheduleExpression.cron(
                minute=minute, hour=hour, week_day="MON-FRI", time_zone=TimeZone.of(contract.EXCHANGE_TIMEZONE)
            ),
            target=targets.StepFunctionsStartExecution(
                machine,
                input=scheduler.ScheduleTargetInput.from_object({**order, "only_in_sessions": True}),
                retry_attempts=3,
            ),
            enabled=enabled,
        )

"""Executions by the clock of New York, on days that the exchange opens; disabled unless asked for."""

from __future__ import annotations

from collections.abc import Sequence

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
    ends such an execution at once; the length of a half day is the calendar's too. Serving replays the last
    stored session until there is a feed of the running one.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: ScheduleSettings, machine: sfn.StateMachine
    ) -> None:
        super().__init__(scope, construct_id)
        for name, at, phases in (
            ("Collect", settings.collect_at, ["ingest"]),
            ("Serve", settings.serve_at, ["serve"]),
        ):
            self._schedule(name, at, phases, machine, enabled=settings.enabled)

    def _schedule(self, name: str, at: str, phases: Sequence[str], machine: sfn.StateMachine, *, enabled: bool) -> None:
        hour, _, minute = at.partition(":")
        order = {"phases": list(phases), "only_in_sessions": True}
        scheduler.Schedule(
            self,
            name,
            schedule=scheduler.ScheduleExpression.cron(
                minute=minute, hour=hour, week_day="MON-FRI", time_zone=TimeZone.of(contract.EXCHANGE_TIMEZONE)
            ),
            target=targets.StepFunctionsStartExecution(
                machine, input=scheduler.ScheduleTargetInput.from_object(order), retry_attempts=3
            ),
            enabled=enabled,
        )

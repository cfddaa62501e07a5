"""The state machine's executions, as Step Functions tells them where it can be asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from app.errors import StockflowError
from app.workflow.names import default_run_id
from embedded.execution import Execution, read_execution

_LISTED = 1000
_LOOKED_INTO = 50
"""An execution that bears another name than its run is found among so many of the newest."""


class NotAsked(StockflowError):
    """Step Functions cannot be asked."""


@dataclass(frozen=True)
class Begun:
    """An execution that was begun."""

    arn: str
    started: datetime
    run_id: str


class Machine:
    """One state machine. What cannot change any more is asked once."""

    def __init__(self, states: Any, arn: str) -> None:
        self._states, self._arn = states, arn
        self._run_ids: dict[str, str] = {}
        self._ended: dict[str, Execution] = {}

    def begun(self) -> list[Begun]:
        """Its executions, the newest first. Raises NotAsked, as all of them do."""
        try:
            told = self._states.list_executions(stateMachineArn=self._arn, maxResults=_LISTED)["executions"]
            told.sort(key=lambda listed: listed["startDate"], reverse=True)
            return [
                Begun(
                    str(listed["executionArn"]), listed["startDate"], self._run_id(str(listed["executionArn"]), place)
                )
                for place, listed in enumerate(told)
            ]
        except (ClientError, BotoCoreError) as exc:
            raise NotAsked(f"Step Functions cannot be asked: {exc}") from exc

    def execution(self, begun: Begun) -> Execution:
        """One of them as it stands."""
        if begun.arn not in self._ended:
            try:
                found = read_execution(self._states, begun.arn)
            except (ClientError, BotoCoreError) as exc:
                raise NotAsked(f"Step Functions cannot be asked: {exc}") from exc
            if not found.ended:
                return found
            self._ended[begun.arn] = found
        return self._ended[begun.arn]

    def _run_id(self, arn: str, place: int) -> str:
        """The run that an execution makes: its input says so, or its name does."""
        if arn not in self._run_ids:
            if place >= _LOOKED_INTO:
                return default_run_id(arn)
            asked = json.loads(self._states.describe_execution(executionArn=arn).get("input") or "{}")
            named = asked.get("run_id") if isinstance(asked, dict) else None
            self._run_ids[arn] = named if isinstance(named, str) and named else default_run_id(arn)
        return self._run_ids[arn]

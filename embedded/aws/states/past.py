"""Executions of an earlier life of the embedded AWS: they can be listed and described, and do nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from moto.stepfunctions.parser.api import ExecutionStatus
from moto.stepfunctions.parser.backend.execution import Execution

from embedded.aws.account import ACCOUNT, REGION


class PastExecution(Execution):  # type: ignore[misc]
    """state_machine: the one that it belongs to, None where that is not deployed any more."""

    def __init__(self, described: Mapping[str, Any], machines: Mapping[str, Any]) -> None:
        machine = machines.get(described["stateMachineArn"])
        self.state_machine = machine
        if machine is None:
            return
        super().__init__(
            name=described["name"],
            sm_type=machine.sm_type,
            role_arn=machine.roleArn,
            exec_arn=described["executionArn"],
            account_id=ACCOUNT,
            region_name=REGION,
            state_machine=machine,
            start_date=datetime.fromisoformat(described["startDate"]),
            cloud_watch_logging_session=None,
            activity_store={},
            input_data=described["input"],
        )
        self.exec_status = ExecutionStatus(described["status"])
        self.stop_date = datetime.fromisoformat(described["stopDate"])
        self.error, self.cause = described.get("error"), described.get("cause")
        self.output = json.loads(described["output"]) if described.get("output") else None
        self._history = described["events"]

    @staticmethod
    def describe(execution: Any) -> dict[str, Any]:
        """What to keep of an execution."""
        told = dict(execution.to_describe_output())
        return {
            **{name: told.get(name) for name in ("name", "executionArn", "stateMachineArn", "input", "output")},
            **{name: told.get(name) for name in ("error", "cause")},
            **{name: told[name].isoformat() for name in ("startDate", "stopDate")},
            "status": str(told["status"].value),
            "events": json.loads(json.dumps(execution.to_history_output()["events"], default=str)),
        }

    def to_history_output(self) -> Any:
        """The events as they were."""
        return {"events": self._history}

    def stop(self, stop_date: Any, error: str | None, cause: str | None) -> None:
        """It has ended already."""

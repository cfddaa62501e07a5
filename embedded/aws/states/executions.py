"""How executions end and what is told of them.

A stop is seen at once, each end is an event on the bus, their history goes to the logs and is answered page by page.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.stepfunctions.exceptions import InvalidToken
from moto.stepfunctions.parser.api import (
    ExecutionAbortedEventDetails,
    ExecutionStatus,
    HistoryEventType,
)
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.event.event_manager import EventHistoryContext, EventManager
from moto.stepfunctions.parser.asl.eval.event.logging import CloudWatchLoggingConfiguration, is_logging_enabled_for
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution
from moto.stepfunctions.parser.models import StepFunctionsParserBackend, stepfunctions_parser_backends
from moto.stepfunctions.responses import StepFunctionResponse

from embedded.aws import events
from embedded.aws.account import ACCOUNT, OPERATOR, REGION
from embedded.aws.host import Host
from embedded.aws.logs import LogStream

_LOG = logging.getLogger(__name__)
_STARTS_WITHIN_S = 10.0
_CLOSED = "closed_by_the_end"
_PAGE, _LONGEST_PAGE = 100, 1000

ON_END: list[Callable[[Any], None]] = []
"""Called with each execution that has ended, in the thread that ended it."""


class HistoryLog:
    """What moto's interpreter tells an execution's events, so that they reach the machine's log group.

    The log delivery writes with rights of its own, not with the machine's.
    """

    def __init__(self, endpoint: str, execution_arn: str, configuration: Any) -> None:
        self.execution_arn = execution_arn
        self.configuration = configuration
        _, _, machine, name = execution_arn.rsplit(":", 3)
        day = datetime.now(UTC).strftime("%Y-%m-%d")
        self._stream = LogStream(endpoint, OPERATOR, configuration.log_group_name, f"states/{machine}/{day}/{name}")

    def log_level_filter(self, history_event_type: Any) -> bool:
        """Whether the machine's level asks for this event."""
        return bool(is_logging_enabled_for(self.configuration.log_level, history_event_type))

    def publish_history_log(self, history_log: Any) -> None:
        """Append an event."""
        self._stream.line(json.dumps(history_log, default=str))

    def close(self) -> None:
        """Send what is left."""
        self._stream.close()


def install(host: Host) -> None:
    """Complete the executions of this process."""
    _name_the_nameless()
    _log_history(host)
    _stop_at_once()
    _tell_the_end()
    _keep_the_reason()
    _date_timeouts()
    _answer_pages()


def abort_all(error: str, cause: str) -> int:
    """Stop what runs; returns how many executions that were."""
    running = [
        execution
        for machine in stepfunctions_parser_backends[ACCOUNT][REGION].state_machines
        for execution in list(machine.executions)
        if execution.exec_status == ExecutionStatus.RUNNING
    ]
    for execution in running:
        execution.stop(datetime.now(UTC), error, cause)
    return len(running)


def _name_the_nameless() -> None:
    """moto's executing backend takes None for a name."""
    start_execution = StepFunctionsParserBackend.start_execution

    def named_start(self: Any, state_machine_arn: str, name: str | None = None, *args: Any, **named: Any) -> Any:
        return start_execution(self, state_machine_arn, name or str(uuid.uuid4()), *args, **named)

    StepFunctionsParserBackend.start_execution = named_start


def _log_history(host: Host) -> None:
    start = Execution.start

    def logged_start(self: Any) -> None:
        configuration = CloudWatchLoggingConfiguration.from_logging_configuration(
            self.state_machine.arn, self.state_machine.loggingConfiguration or {}
        )
        if configuration is not None:
            self._cloud_watch_logging_session = HistoryLog(host.endpoint, self.exec_arn, configuration)
        start(self)
        _emit(self)

    Execution.start = logged_start


def _stop_at_once() -> None:
    """moto's stop waits for the state to end. On AWS the execution has ended, whatever still runs in the state."""

    def stop(self: Any, stop_date: Any, error: str | None, cause: str | None) -> None:
        if self.exec_status != ExecutionStatus.RUNNING:
            return
        environment = _environment(self.exec_worker)
        self.exec_status = ExecutionStatus.ABORTED
        self.stop_date = datetime.now(UTC)
        self.error, self.cause = error or None, cause or None
        environment.event_manager.add_event(
            context=EventHistoryContext.of_program_start(),
            event_type=HistoryEventType.ExecutionAborted,
            event_details=EventDetails(
                executionAbortedEventDetails=ExecutionAbortedEventDetails(error=error, cause=cause)
            ),
        )
        setattr(environment.event_manager, _CLOSED, True)
        environment.set_stop(stop_date=stop_date, cause=cause, error=error)
        _ended(self)

    Execution.stop = stop
    add_event = EventManager.add_event

    def add_event_unless_closed(self: Any, *args: Any, **named: Any) -> Any:
        return 0 if getattr(self, _CLOSED, False) else add_event(self, *args, **named)

    EventManager.add_event = add_event_unless_closed


def _tell_the_end() -> None:
    reflect = BaseExecutionWorkerCommunication._reflect_execution_status

    def reflect_and_tell(self: Any) -> None:
        if self.execution.exec_status != ExecutionStatus.RUNNING:
            return  # it was stopped
        reflect(self)
        setattr(self.execution.exec_worker.env.event_manager, _CLOSED, True)  # branches may still run
        _ended(self.execution)

    BaseExecutionWorkerCommunication._reflect_execution_status = reflect_and_tell


def _keep_the_reason() -> None:
    """moto's API drops the error and the cause that StopExecution is given."""
    original = StepFunctionResponse.stop_execution

    def stop_execution(self: Any) -> Any:
        error, cause = self._get_param("error"), self._get_param("cause")
        backend = self.stepfunction_backend
        if hasattr(backend, "get_execution_history"):
            execution = backend.describe_execution(self._get_param("executionArn"))
            execution.stop(stop_date=datetime.now(UTC), error=error, cause=cause)
        return original(self)

    StepFunctionResponse.stop_execution = stop_execution


def _date_timeouts() -> None:
    """moto leaves out when an execution that timed out did so."""
    describe, listed = StepFunctionResponse.describe_execution, StepFunctionResponse.list_executions

    def dated(self: Any, said: dict[str, Any]) -> None:
        if said["status"] == ExecutionStatus.TIMED_OUT.value:
            said["stopDate"] = self.stepfunction_backend.describe_execution(said["executionArn"]).stop_date

    def describe_execution(self: Any) -> Any:
        answer = describe(self)
        dated(self, answer.result)
        return answer

    def list_executions(self: Any) -> Any:
        answer = listed(self)
        for said in answer.result["executions"]:
            dated(self, said)
        return answer

    StepFunctionResponse.describe_execution = describe_execution
    StepFunctionResponse.list_executions = list_executions


def _answer_pages() -> None:
    """moto answers with the whole history, whatever is asked for."""
    original = StepFunctionResponse.get_execution_history

    def get_execution_history(self: Any) -> Any:
        backwards, token = bool(self._get_param("reverseOrder")), self._get_param("nextToken")
        size = min(int(self._get_param("maxResults") or _PAGE), _LONGEST_PAGE)
        events = list(original(self).result["events"])
        if backwards:
            events.reverse()
        if token is not None:  # the id of the event that the last page ended with
            if not token.isdecimal():
                raise InvalidToken
            events = [
                event for event in events if (event["id"] < int(token)) is backwards and event["id"] != int(token)
            ]
        page: dict[str, Any] = {"events": events[:size]}
        return ActionResult(page | ({"nextToken": str(events[size - 1]["id"])} if len(events) > size else {}))

    StepFunctionResponse.get_execution_history = get_execution_history


def _environment(worker: Any) -> Any:
    """The interpreter's, which its thread makes a moment after the start."""
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while worker.env is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return worker.env


def _ended(execution: Any) -> None:
    if execution._cloud_watch_logging_session is not None:
        execution._cloud_watch_logging_session.close()
    _emit(execution)
    for told in list(ON_END):
        try:
            told(execution)
        except Exception:  # nor may this
            _LOG.exception("the end of %s could not be kept", execution.exec_arn)


def _emit(execution: Any) -> None:
    """https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html."""
    described = execution.to_describe_output()
    times = {name: described.get(name) for name in ("startDate", "stopDate")}
    detail = {
        **{
            name: described.get(name)
            for name in ("executionArn", "stateMachineArn", "name", "input", "output", "error", "cause")
        },
        **{name: int(instant.timestamp() * 1000) if instant else None for name, instant in times.items()},
        "status": str(described["status"].value),
    }
    try:
        events.emit("aws.states", "Step Functions Execution Status Change", [described["executionArn"]], detail)
    except Exception:  # an event that nobody takes must not change how the execution ended
        _LOG.exception("the end of %s could not be told", described["executionArn"])

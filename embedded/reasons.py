"""Why an execution failed, in one line, and the exit status that says it to a shell."""

from __future__ import annotations

import inspect
import re
from typing import Any

from app import errors
from app.errors import ServingError, StockflowError, TrainingError
from app.processes import OUR_MESSAGE, last_error
from embedded.execution import Execution, StateRun
from embedded.phase_logs import PhaseLogs, parse
from embedded.phases import phase_of

_EXIT_CODE = re.compile(r"exit (?:code|status):? (\d+)")
_OF_PHASE = {"train": TrainingError.exit_code, "serve": ServingError.exit_code}
_OUR_ERRORS = {
    name: kind.exit_code
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, StockflowError)
}
_LONGEST = 400


def explain(execution: Execution, logs: PhaseLogs) -> tuple[str, int]:
    """What went wrong, and an exit status above 0. logs: one that has not been read from yet."""
    state = _blamed(execution)
    if state is None:
        return explain_by_service(execution), StockflowError.exit_code
    own = [line for line in _lines(execution, state, logs) if line.startswith(OUR_MESSAGE)]
    reason = f"{state.name}: {last_error(own)[:_LONGEST]}" if own else explain_by_service(execution)
    return reason, _exit_code(state, parse(state.cause) or {})


def explain_by_service(execution: Execution) -> str:
    """What went wrong, as the service tells it on which it did: no log is read."""
    state = _blamed(execution)
    if state is None:
        how = "was stopped" if execution.status == "ABORTED" else "took longer than it may"
        return f"the execution {how}{f': {execution.cause}' if execution.cause else ''}"
    return f"{state.name}: {_told(state, parse(state.cause) or {})[:_LONGEST]}"


def _blamed(execution: Execution) -> StateRun | None:
    """The state that an execution failed in; None where it ended from outside."""
    return None if execution.status in {"ABORTED", "TIMED_OUT"} else execution.failed_state()


def _lines(execution: Execution, state: StateRun, logs: PhaseLogs) -> list[str]:
    return [line for label, line in logs.new_lines(execution) if label.split()[0] == state.name]


def _told(state: StateRun, cause: dict[str, Any]) -> str:
    """What the service says: Lambda, SageMaker, EMR and Batch each in a place of its own."""
    step = cause.get("Step", {}).get("Status", {})
    candidates = (
        cause.get("errorMessage"),
        cause.get("FailureReason"),
        step.get("FailureDetails", {}).get("Message"),
        step.get("StateChangeReason", {}).get("Message"),
        cause.get("Container", {}).get("Reason"),
        cause.get("StatusReason"),
        state.cause,
    )
    told = next(filter(None, candidates), "no cause is given")
    return f"{state.error}: {told}"


def _exit_code(state: StateRun, cause: dict[str, Any]) -> int:
    named = _OUR_ERRORS.get(state.error) or _OUR_ERRORS.get(str(cause.get("errorType")))
    container = cause.get("Container", {}).get("ExitCode")
    said = _EXIT_CODE.search(str(cause.get("FailureReason", "")))
    return int(
        named
        or container
        or (said and said[1])
        or _OF_PHASE.get(phase_of(state.name) or "")
        or StockflowError.exit_code
    )

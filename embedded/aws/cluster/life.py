"""The life of one cluster: from STARTING to TERMINATED, and its steps in between."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Sequence
from datetime import UTC
from typing import Any, Final

from moto.core.utils import utcnow
from moto.emr.exceptions import ValidationException

from embedded.aws.cluster.nodes import Reason, Unable, release, sign_in, start_nodes
from embedded.aws.cluster.step import Outcome, StepRun
from embedded.aws.host import Host

_STARTING_S: Final = 0.5
_BOOTSTRAPPING_S: Final = 0.5
_TERMINATING_S: Final = 0.3
"""Long enough to be seen."""
_TICK_S: Final = 0.2
GRACE_S: Final = 5.0
"""Between SIGTERM and SIGKILL."""
_MOST_ACTIVE_STEPS: Final = 256
_ACTIVE: Final = frozenset({"PENDING", "RUNNING", "CANCEL_PENDING"})

USER_REQUEST: Final = Reason("USER_REQUEST", "Terminated by user request")
_STEP_FAILED: Final = Reason("STEP_FAILURE", "Shut down as step failed", failed=True)
_COMPLETED: Final = Reason("ALL_STEPS_COMPLETED", "Steps completed")
_COMPLETED_WITH_ERRORS: Final = Reason("STEP_FAILURE", "Steps completed with errors")


class Life:
    """What moves a cluster of moto's from state to state. Safe to use from several threads.

    Its disks are a folder that is removed at its end. It holds none of the host's cores: its nodes are machines
    of their own, and a stream runs beside jobs that wait for it.
    """

    def __init__(self, host: Host, cluster: Any) -> None:
        self._host = host
        self._cluster = cluster
        self._folder = host.folder / "clusters" / cluster.id
        self._runs: dict[str, StepRun] = {}
        self._ending: Reason | None = None
        self._applications = itertools.count(1)
        self._changed = threading.Condition()

    def begin(self) -> None:
        """Start the cluster, which goes on by itself from here."""
        threading.Thread(target=self._live, name=f"cluster {self._cluster.id}", daemon=True).start()

    def add(self, steps: Sequence[Any]) -> None:
        """Append steps; moto's ValidationException where AWS has it."""
        with self._changed:
            if self._ending is not None:
                raise ValidationException(
                    "A job flow that is shutting down, terminated, or finished may not be modified."
                )
            if sum(step.state in _ACTIVE for step in self._cluster.steps) + len(steps) > _MOST_ACTIVE_STEPS:
                raise ValidationException(
                    "Maximum number of active steps(State = 'Running', 'Pending' or 'Cancel_Pending')"
                    " for cluster exceeded."
                )
            self._cluster.steps.extend(steps)

    def terminate(self, reason: Reason = USER_REQUEST) -> None:
        """Begin to end the cluster: what is pending is cancelled, what runs is interrupted. Once is enough."""
        with self._changed:
            if self._ending is None:
                self._ending = reason
                self._enter("TERMINATING", reason.code, reason.message)
                self._cancel_pending("Job terminated")
                self._changed.notify_all()

    def cancel(self, step_id: str, grace_s: float) -> str | None:
        """Cancel a step, asynchronously when it runs; the reason why not, where it cannot be."""
        with self._changed:
            step = next((step for step in self._cluster.steps if step.id == step_id), None)
            if step is None:
                return f"Step id '{step_id}' is not valid."
            if step.state == "PENDING":
                _end(step, "CANCELLED", "Cancelled by user request")
            elif step.id in self._runs:
                step.state = "CANCEL_PENDING"
                self._runs[step.id].stop("CANCELLED", grace_s)
            else:
                return f"Step is {step.state}: only pending and running steps can be cancelled."
        return None

    def _live(self) -> None:
        try:
            self._provision()
            self._work()
        except Unable as exc:
            self.terminate(exc.reason)
        except Exception as exc:  # whatever it is, a cluster does not stay in a state that it left
            self.terminate(Reason("INTERNAL_ERROR", f"{type(exc).__name__}: {exc}", failed=True))
        self._shut_down()

    def _provision(self) -> None:
        self._enter("STARTING", "", "Provisioning Amazon EC2 capacity")
        self._pause(_STARTING_S)
        self._enter("BOOTSTRAPPING", "", "Running bootstrap actions")
        start_nodes(self._host, self._cluster, self._folder)
        self._pause(_BOOTSTRAPPING_S)

    def _work(self) -> None:
        """Run steps until the cluster is to end."""
        cluster = self._cluster
        idle_since = time.monotonic()
        with self._changed:
            cluster.ready_datetime = utcnow()
            while self._ending is None:
                self._start_steps()
                if self._runs:
                    self._enter("RUNNING", "", "Running step")
                    idle_since = time.monotonic()
                elif not cluster.keep_job_flow_alive_when_no_steps:
                    failed = any(step.state == "FAILED" for step in cluster.steps)
                    self.terminate(_COMPLETED_WITH_ERRORS if failed else _COMPLETED)
                else:
                    last = "after last step completed" if cluster.steps else "to run steps"
                    self._enter("WAITING", "", f"Cluster ready {last}.")
                    self._end_if_idle(time.monotonic() - idle_since)
                self._changed.wait(_TICK_S)

    def _start_steps(self) -> None:
        for step in self._cluster.steps:
            if len(self._runs) >= (self._cluster.step_concurrency_level or 1):
                return
            if step.state == "PENDING":
                nodes = sign_in(self._host, self._cluster, self._folder)
                run = StepRun(self._host, nodes, step, self._next_application(), self._step_ended)
                step.state, step.start_date_time = "RUNNING", utcnow()
                self._runs[step.id] = run
                run.start()

    def _next_application(self) -> str:
        """As YARN numbers them: the cluster's start in milliseconds, and a count."""
        started = self._cluster.start_datetime.replace(tzinfo=UTC)
        return f"{int(started.timestamp() * 1000)}_{next(self._applications):04d}"

    def _step_ended(self, run: StepRun, outcome: Outcome) -> None:
        step = run.step
        with self._changed:
            del self._runs[step.id]
            if outcome.status == 0 and not outcome.stopped:
                _end(step, "COMPLETED")
            elif run.becomes:
                _end(step, run.becomes)
            else:
                step.failure_details = {"Reason": "Unknown Error.", "Message": str(outcome)}
                step.failure_details["LogFile"] = run.log_file(outcome.where)
                _end(step, "FAILED")
                self._after_failure(step.action_on_failure)
            self._changed.notify_all()

    def _after_failure(self, action: str) -> None:
        """Do as a failed step asked for. A cluster that may not be terminated waits instead."""
        ends = action in {"TERMINATE_CLUSTER", "TERMINATE_JOB_FLOW"}
        if ends and not self._cluster.termination_protected:
            self.terminate(_STEP_FAILED)
        elif ends or action == "CANCEL_AND_WAIT":
            self._cancel_pending("Cancelled because a step failed")

    def _cancel_pending(self, message: str) -> None:
        for step in self._cluster.steps:
            if step.state == "PENDING":
                _end(step, "CANCELLED", message)

    def _end_if_idle(self, idle_s: float) -> None:
        limit_s = getattr(self._cluster, "idle_timeout_s", None)
        if limit_s is not None and idle_s >= limit_s and not self._cluster.termination_protected:
            self.terminate(Reason("ALL_STEPS_COMPLETED", f"Auto-terminated after it was idle for {limit_s} seconds"))

    def _shut_down(self) -> None:
        cluster, reason = self._cluster, self._ending or USER_REQUEST
        with self._changed:
            runs = list(self._runs.values())
        for run in runs:
            run.stop("INTERRUPTED", GRACE_S)
        for run in runs:
            run.join()
        time.sleep(_TERMINATING_S)
        try:
            shutil.rmtree(self._folder, ignore_errors=True)
            release(cluster)
        finally:
            with self._changed:
                cluster.end_datetime = utcnow()
                cluster.state = "TERMINATED_WITH_ERRORS" if reason.failed else "TERMINATED"

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ending is not None, seconds)

    def _enter(self, state: str, code: str, message: str) -> None:
        """Change the state, unless the cluster has begun to end."""
        with self._changed:
            if self._ending is None or state == "TERMINATING":
                self._cluster.state = state
                self._cluster.state_change_code = code
                self._cluster.last_state_change_reason = message


def _end(step: Any, state: str, message: str | None = None) -> None:
    step.state, step.last_state_change_reason = state, message
    step.end_date_time = utcnow()

"""The machine's cores as AWS Batch's compute environments: what waits, what runs, and how it ends."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.processes import Child
from embedded.aws.batch.container import NotStarted, run_attempt
from embedded.aws.batch.job import FAILED, PENDING, RUNNABLE, RUNNING, STARTING, SUCCEEDED, Attempt, Job, now_ms
from embedded.aws.batch.retry import Ended
from embedded.aws.host import Host

_TIMED_OUT = "Job attempt duration exceeded timeout"
_DEPENDENCY_FAILED = "Dependent Job failed"
_CHILD_FAILED = "Array Child Job failed"
_log = logging.getLogger(__name__)


class Fleet:
    """Runs as many jobs at once as the machine has cores, in the order in which they can run.

    A job takes one core, whatever its definition asks for: the instances that it is written for have more of them. It
    waits for the cores of Batch's other jobs as long as those run, but for those of other services a few seconds only:
    on AWS they have instances of their own, and a job that waits for a stream that waits for the job would never run.

    patience_s: how long it waits for other services.
    """

    def __init__(self, host: Host, *, patience_s: float = 5.0) -> None:
        self._host = host
        self._patience_s = patience_s
        self._changed = threading.Condition(threading.RLock())
        self._ready: deque[Job] = deque()
        self._dependants: defaultdict[str, list[Job]] = defaultdict(list)
        self._running: dict[str, Child] = {}
        for number in range(host.cores.count):
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True).start()

    @contextmanager
    def unchanging(self) -> Iterator[None]:
        """Nothing changes meanwhile."""
        with self._changed:
            yield

    def submit(self, job: Job, dependencies: list[tuple[Job, Job]]) -> None:
        """Run a job, or an array's children, as soon as it can. dependencies: pairs of a job and one it waits for."""
        with self._changed:
            doomed = []
            for waiting, other in dependencies:
                if other.status == FAILED:
                    doomed.append(waiting)
                elif not other.ended:
                    waiting.blockers.add(other.job_id)
                    self._dependants[other.job_id].append(waiting)
            job.status = PENDING
            for waiting in doomed:
                self._fail_dependant(waiting)
            for one in job.children or [job]:
                self._release(one)

    def cancel(self, job: Job, reason: str) -> None:
        """End what has not started; what has goes on."""
        with self._changed:
            if job.ended:
                return
            if job.children:
                job.cancelled, job.ending = True, reason
                for child in job.children:
                    self.cancel(child, reason)
            elif job.status not in (STARTING, RUNNING):
                job.cancelled = True
                self._end(job, FAILED, reason)

    def terminate(self, job: Job, reason: str) -> None:
        """End it, whatever it does; its process has a few seconds to end by itself."""
        with self._changed:
            if job.ended or job.terminated:
                return
            job.terminated = True
            job.ending = job.ending or reason
            for child in job.children:
                self.terminate(child, reason)
            if not job.children and job.status not in (STARTING, RUNNING):
                self._end(job, FAILED, reason)
            self._stop(job)

    # --- what waits ------------------------------------------------------------------------------

    def _release(self, job: Job) -> None:
        """Let a job run that waits for nothing any more."""
        if job.children or job.ended:
            return
        job.status = PENDING if job.blockers else RUNNABLE
        if job.status == RUNNABLE:
            self._ready.append(job)
            self._changed.notify()

    def _end(self, job: Job, status: str, reason: str) -> None:
        """Say that a job has ended, and all that follows from it for others."""
        following: deque[tuple[Job, str, str]] = deque([(job, status, reason)])
        while following:
            one, status, reason = following.popleft()
            if one.ended:
                continue
            one.end(status, reason)
            for dependant in self._dependants.pop(one.job_id, []):
                dependant.blockers.discard(one.job_id)
                if status == SUCCEEDED:
                    self._release(dependant)
                elif dependant.children:
                    dependant.ending = dependant.ending or _DEPENDENCY_FAILED
                else:
                    following.append((dependant, FAILED, _DEPENDENCY_FAILED))
            parent = one.parent
            if parent is not None and not parent.unended_children:
                failed = any(child.status == FAILED for child in parent.children)
                why = (parent.ending or _CHILD_FAILED) if failed else ""
                following.append((parent, FAILED if failed else SUCCEEDED, why))

    def _fail_dependant(self, job: Job) -> None:
        """End a job one of whose dependencies has failed already."""
        if job.children:
            job.ending = _DEPENDENCY_FAILED
        else:
            self._end(job, FAILED, _DEPENDENCY_FAILED)

    # --- what runs -------------------------------------------------------------------------------

    def _work(self) -> None:
        """Run one job after the other, for ever."""
        while True:
            job = self._next()
            self._run(job)

    def _next(self) -> Job:
        with self._changed:
            while not self._ready:
                self._changed.wait()
            return self._ready.popleft()

    def _run(self, job: Job) -> None:
        """Try a job until it has ended."""
        given_up_at = time.monotonic() + self._patience_s
        with self._host.cores.hold(1, lambda: job.ended or time.monotonic() > given_up_at):
            while (attempt := self._begin(job)) is not None:
                try:
                    ended = self._attempt(job, attempt)
                except Exception as exc:  # a job must end, whatever keeps it from running
                    _log.exception("job %s", job.job_id)
                    ended = NotStarted(f"CannotStartContainerError: {exc}").ended()
                self._record(job, attempt, ended)

    def _begin(self, job: Job) -> Attempt | None:
        """The next attempt; None when the job has ended."""
        with self._changed:
            if job.ended:
                return None
            attempt = Attempt(job.order, len(job.attempts) + 1)
            job.attempts.append(attempt)
            job.status = STARTING
            return attempt

    def _attempt(self, job: Job, attempt: Attempt) -> Ended:
        """Run one attempt, within its time."""
        timers: list[threading.Timer] = []

        def started(child: Child) -> None:
            with self._changed:
                job.status, attempt.started_ms = RUNNING, now_ms()
                self._running[job.job_id] = child
                if job.ending:
                    self._stop(job)
            if job.order.timeout_s:
                timers.append(_timer(job.order.timeout_s, lambda: self._time_out(job, child)))

        try:
            return run_attempt(self._host, job, attempt, started)
        finally:
            for timer in timers:
                timer.cancel()
            with self._changed:
                self._running.pop(job.job_id, None)

    def _record(self, job: Job, attempt: Attempt, ended: Ended) -> None:
        """What an attempt's end means for its job."""
        with self._changed:
            if job.ending:
                ended = Ended(ended.exit_code, ended.reason, job.ending)
            attempt.ended, attempt.stopped_ms = ended, now_ms()
            if ended.exit_code == 0 and not job.ending:
                self._end(job, SUCCEEDED, ended.status_reason)
            elif job.ending or not job.order.retry.again(len(job.attempts), ended):
                self._end(job, FAILED, ended.status_reason)
            else:
                job.status, job.status_reason = RUNNABLE, ended.status_reason

    def _time_out(self, job: Job, child: Child) -> None:
        with self._changed:
            if self._running.get(job.job_id) is child:
                job.ending = job.ending or _TIMED_OUT
                self._stop(job)

    def _stop(self, job: Job) -> None:
        """Stop a job's process, if there is one, without waiting for it."""
        child = self._running.get(job.job_id)
        if child is not None:
            threading.Thread(target=child.stop, daemon=True).start()


def _timer(seconds: float, call: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer

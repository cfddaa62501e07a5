"""The processes of one training job."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.processes import Child
from embedded.aws.host import Host
from embedded.aws.training.log import JobLog

_LOOK_S = 0.1


@dataclass(frozen=True)
class Process:
    """A process to start, and where its output goes."""

    command: Sequence[str]
    environ: Mapping[str, str]
    log: JobLog


@dataclass(frozen=True)
class Ended:
    """cut_short: why the processes were stopped, empty when they were not; status, cause: of the first that failed."""

    cut_short: str
    status: int
    cause: str


def run_processes(host: Host, processes: Sequence[Process], cwd: Path, cut_short: Callable[[], str]) -> Ended:
    """Run them until all have ended, one has failed, or `cut_short`, which is asked all the time, gives a reason.

    None runs and all logs are closed when this returns.
    """
    children: list[Child] = []
    try:
        for process in processes:
            children.append(host.start(process.command, process.environ, process.log, cwd=cwd))
        reason = ""
        while not _over(children) and not (reason := cut_short()):
            time.sleep(_LOOK_S)
        failed = next((number for number, child in enumerate(children) if child.poll()), None)
    finally:
        for child in children:
            child.stop()
        statuses = [host.finish(child) for child in children]
        for process in processes:
            process.log.close()
    if failed is None:
        return Ended(reason, 0, "")
    cause = processes[failed].log.cause() or children[failed].last_error()
    return Ended(reason, statuses[failed], cause)


def _over(children: Sequence[Child]) -> bool:
    statuses = [child.poll() for child in children]
    return any(statuses) or None not in statuses

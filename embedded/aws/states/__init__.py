"""moto's interpreter of state machines, completed: real `.sync` tasks, each machine's role, ends that are events."""

from __future__ import annotations

from moto.core.config import default_user_config

from embedded.aws.host import Host
from embedded.aws.states import clients, executions, tasks


def install(host: Host) -> None:
    """Let this process's moto interpret state machines, and complete its interpreter."""
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    clients.install(host)
    tasks.install()
    executions.install(host)

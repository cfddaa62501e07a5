"""All checks of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from app.doctor import programs, room
from app.doctor.check import Check
from app.doctor.horovod import HOROVOD_S, check_horovod

_PROGRAM_S, _COMPILER_S, _QUICK_S = 20.0, 60.0, 10.0


def machine_checks(environ: Mapping[str, str]) -> list[Check]:
    """What a run needs of this machine: programs, packages, ports, room."""
    slow = "the machine is overloaded, or a network drive hangs: look at `uptime` and `df`"
    return [
        Check("Python", _QUICK_S, lambda limit_s: programs.check_python(), slow),
        Check("packages", _QUICK_S, lambda limit_s: programs.check_packages(), slow),
        Check("settings", _QUICK_S, lambda limit_s: programs.check_settings(environ), slow),
        Check(
            "Java",
            _PROGRAM_S,
            partial(programs.check_java, environ),
            "`java -version` hangs: set JAVA_HOME to a Java 17",
        ),
        Check(
            "Open MPI",
            _PROGRAM_S,
            partial(programs.check_open_mpi, environ),
            "`mpirun --version` hangs: install it anew",
        ),
        Check(
            "C++ compiler", _COMPILER_S, partial(programs.check_compiler, environ), "set CXX to a compiler that works"
        ),
        Check("ports", _QUICK_S, lambda limit_s: room.check_ports(), "a firewall holds up 127.0.0.1: let it pass"),
        Check("disk", _QUICK_S, lambda limit_s: room.check_disk(), slow),
        Check("memory", _QUICK_S, lambda limit_s: room.check_memory(), slow),
        Check("/dev/shm", _QUICK_S, lambda limit_s: room.check_shm(Path("/dev/shm")), slow),  # noqa: S108  read only
        Check("folders", _QUICK_S, lambda limit_s: room.check_folders(environ), slow),
        Check(
            "Horovod",
            HOROVOD_S,
            partial(check_horovod, environ),
            "training would hang too: see whether `mpirun -np 2 hostname` ends, and that a firewall passes 127.0.0.1",
        ),
    ]

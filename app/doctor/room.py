"""The ports, the room and the folders that a run takes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

from app import contract
from app.doctor.check import Finding, failure, good, warning

BUILD = Path("build")
"""Where commands leave what they make, unless they are told otherwise."""
PORTS: Mapping[int, str] = {
    8050: "stockflow dashboard --port 0",
    5555: "python -m embedded.aws.server --port 0",
    5556: "python -m embedded.yahoo --port 0",
}
"""Those that are taken without being named, or that docs/phases.md names, and what takes a free one instead."""
_HOST = "127.0.0.1"
_CONNECT_S = 5.0
_GIB, _MIB = 1 << 30, 1 << 20
_DISK = (1 * _GIB, 3 * _GIB)
"""Free bytes below which a run would fail, or soon will."""
_MEMORY = (2 * _GIB, 4 * _GIB)
"""The same of memory: a run of the simulated market takes 3 GiB."""
_SHM = 64 * _MIB
_UNLIMITED = 1 << 60
"""What cgroups of version 1 have as a limit where there is none is larger."""


def check_ports() -> Finding:
    """The embedded AWS and the local Yahoo listen on free ports of the loopback interface."""
    with socket.socket() as listener:
        try:
            listener.bind((_HOST, 0))
            listener.listen()
            with closing(socket.create_connection(listener.getsockname(), timeout=_CONNECT_S)):
                pass
        except OSError as exc:
            return failure(f"{_HOST} cannot be listened on: {exc.strerror or exc}", "type `ip link set lo up` as root")
    if taken := [port for port in PORTS if _is_taken(port)]:
        todo = f"take a free one where you need it: `{'`, `'.join(PORTS[port] for port in taken)}`"
        return warning(f"{_HOST} has free ports, but in use are {', '.join(map(str, taken))}", todo)
    return good(f"{_HOST} has free ports, {', '.join(map(str, PORTS))} among them")


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return True
    return False


def check_disk() -> Finding:
    """Room where results lie and where tasks keep their files."""
    free = {folder: shutil.disk_usage(_existing(folder)).free for folder in (BUILD, Path(tempfile.gettempdir()))}
    found = ", ".join(f"{room / _GIB:.1f} GiB free for {folder}" for folder, room in free.items())
    todo = "free some: `make clean`, remove build/assemblies, or set TMPDIR to a larger disk"
    return _enough(min(free.values()), _DISK, found, todo)


def check_memory(root: Path = Path("/")) -> Finding:
    """What is free of the machine's memory and of the container's. root: of the file system, for tests."""
    free = free_memory(root)
    if free is None:
        return warning("not known on this system", f"see that {_MEMORY[1] / _GIB:g} GiB are free")
    todo = "end other programs, give the container more, or take fewer tickers: `stockflow run --sim tickers=10`"
    return _enough(free, _MEMORY, f"{free / _GIB:.1f} GiB free", todo)


def free_memory(root: Path) -> int | None:
    """Bytes that can be had: of the machine, and within the limits of the cgroups around this process."""
    try:
        meminfo = (root / "proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    available = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    return min([int(available[1]) * 1024, *_left_in_cgroups(root)]) if available else None


def _left_in_cgroups(root: Path) -> Iterator[int]:
    """What is left within each limit, of cgroups of version 2 and of version 1."""
    top, own = root / "sys/fs/cgroup", ""
    with suppress(OSError):
        found = re.search(r"^0::/(.*)$", (root / "proc/self/cgroup").read_text(encoding="utf-8"), re.MULTILINE)
        own = found[1] if found else ""
    here = top / own
    groups = [
        (folder, "memory.max", "memory.current") for folder in (here, *here.parents) if folder.is_relative_to(top)
    ]
    for folder, limit, taken in [*groups, (top / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")]:
        with suppress(OSError, ValueError):  # no such group, or its limit is "max"
            most = int((folder / limit).read_text(encoding="ascii"))
            if most < _UNLIMITED:
                yield most - int((folder / taken).read_text(encoding="ascii")) + _caches(folder)


def _caches(group: Path) -> int:
    """Bytes of files that the kernel gives back first."""
    with suppress(OSError):
        stat = (group / "memory.stat").read_text(encoding="ascii")
        if found := re.search(r"^(?:total_)?inactive_file (\d+)$", stat, re.MULTILINE):
            return int(found[1])
    return 0


def check_shm(folder: Path) -> Finding:
    """Ranks and worker processes share memory there."""
    todo = "in Docker start with --shm-size=1g; elsewhere, as root, `mount -t tmpfs -o size=1g tmpfs /dev/shm`"
    if not os.access(folder, os.W_OK):
        return failure(f"{folder} cannot be written", todo)
    free = shutil.disk_usage(folder).free
    found = f"{free / _MIB:,.0f} MiB free"
    return good(found) if free >= _SHM else warning(found, todo)


def check_folders(environ: Mapping[str, str]) -> Finding:
    """Whether there can be written where commands write."""
    home = Path(environ.get("HOME") or "/nonexistent")
    cache = Path(environ.get(contract.ENV_CACHE_DIR) or environ.get("XDG_CACHE_HOME") or home / ".cache")
    for folder in (BUILD, Path(tempfile.gettempdir())):
        if why := _not_writable(folder):
            return failure(f"{folder} cannot be written: {why}", f"type `chown -R $USER {folder}`, or start elsewhere")
    if why := _not_writable(cache):
        return warning(
            f"{cache} cannot be written: {why}",
            f"what is compiled there is compiled again each time: set {contract.ENV_CACHE_DIR} to a folder of yours",
        )
    return good(f"{BUILD}, {tempfile.gettempdir()} and {cache} can be written")


def _not_writable(folder: Path) -> str:
    """Why nothing can be written into a folder, or made below the folders above it; empty where it can."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return ""
    except OSError as exc:
        return exc.strerror or str(exc)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    whole = folder.absolute()
    return next(path for path in (whole, *whole.parents) if path.is_dir())


def _enough(free: int, bounds: tuple[int, int], found: str, todo: str) -> Finding:
    least, fair = bounds
    if free >= fair:
        return good(found)
    return (failure if free < least else warning)(
        f"{found}, less than {(least if free < least else fair) / _GIB:g}", todo
    )

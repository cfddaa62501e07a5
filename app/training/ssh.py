"""A way from one node of a job to the others: OpenSSH with keys and settings of the job's own, and no others.

Everything lies in a folder that is private to its user and goes with the job; the machine's own keys, known hosts and
settings are neither read nor changed.
"""

from __future__ import annotations

import contextlib
import getpass
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.errors import TrainingError
from app.processes import Child, find_program

_PASSED_ON = re.compile(r"AWS_\w+|PATH|LD_LIBRARY_PATH|PYTHONPATH")
"""Variables of a node that what runs on it needs too: where programs lie, and its own way to credentials."""
_PLAIN = re.compile(r"[\w./:@%+,=~-]+")
_START_S = 30.0


@dataclass(frozen=True)
class Door:
    """Where a node lets others in. host_key: public, by which they know it."""

    address: str
    port: int
    host_key: str


def make_key(path: Path) -> str:
    """Make a key pair, the private half in the file `path`; returns the public one. MissingProgram without OpenSSH."""
    keygen = find_program("ssh-keygen", "openssh-client")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text(encoding="utf-8").strip()


def own_address(other: str) -> str:
    """This machine's address on the way to another one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((other, 9))
        return str(probe.getsockname()[0])


def open_door(folder: Path, address: str, client_key: str, environ: Mapping[str, str]) -> tuple[Door, Child]:
    """Start an SSH server at a free port of `address` that lets in who has `client_key`, as this user and no other.

    Raises MissingProgram without sshd and TrainingError when it does not start.
    """
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or find_program("sshd", "openssh-server")
    host_key = make_key(folder / "host")
    (folder / "clients").write_text(client_key + "\n", encoding="utf-8")
    with socket.socket() as probe:
        probe.bind((address, 0))
        door = Door(address, int(probe.getsockname()[1]), host_key)
    with contextlib.suppress(OSError):  # Debian's sshd wants it; others have one of their own
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    config = folder / "sshd_config"
    config.write_text(server_config(folder, door, environ), encoding="utf-8")
    server = Child([sshd, "-D", "-e", "-f", str(config)], environ, print)
    _wait_for_server(door, server)
    return door, server


def server_config(folder: Path, door: Door, environ: Mapping[str, str]) -> str:
    """sshd's settings. Modes of folders above are not looked at: `folder` is private, /tmp is everybody's."""
    passed = [f"{name}={environ[name]}" for name in sorted(environ) if _PASSED_ON.fullmatch(name)]
    variables = " ".join(pair for pair in passed if _PLAIN.fullmatch(pair))
    lines = [
        f"ListenAddress {door.address}:{door.port}",
        f"HostKey {folder / 'host'}",
        f"AuthorizedKeysFile {folder / 'clients'}",
        f"AllowUsers {getpass.getuser()}",
        "AuthenticationMethods publickey",
        "PermitRootLogin prohibit-password",
        "StrictModes no",
        "UsePAM no",
        "DisableForwarding yes",
        "PidFile none",
        "LogLevel ERROR",
        *([f"SetEnv {variables}"] if variables else []),
    ]
    return "\n".join(lines) + "\n"


def client_command(folder: Path, client: Path, doors: Iterable[Door]) -> str:
    """The command with which the holder of the key `client` goes through any of the doors and through no other."""
    known, config = folder / "known_hosts", folder / "ssh_config"
    doors = list(doors)
    known.write_text("".join(f"[{door.address}]:{door.port} {door.host_key}\n" for door in doors), encoding="utf-8")
    ports = "".join(f"Host {door.address}\n  Port {door.port}\n" for door in doors)
    common = [
        "Host *",
        f"IdentityFile {client}",
        "IdentitiesOnly yes",
        f"UserKnownHostsFile {known}",
        "GlobalKnownHostsFile /dev/null",
        "StrictHostKeyChecking yes",
        "BatchMode yes",
        "ConnectTimeout 30",
        "LogLevel ERROR",
    ]
    config.write_text(ports + "\n  ".join(common) + "\n", encoding="utf-8")
    return f"{find_program('ssh', 'openssh-client')} -F {config}"


def _wait_for_server(door: Door, server: Child) -> None:
    give_up = time.monotonic() + _START_S
    while server.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(OSError), socket.create_connection((door.address, door.port), 1):
            return
        time.sleep(0.1)
    server.stop()
    raise TrainingError(f"sshd does not start at {door.address}:{door.port}: {server.last_error()}")

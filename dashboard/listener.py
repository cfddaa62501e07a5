"""The loopback port of the page."""

from __future__ import annotations

import socket

from embedded.aws.ports import HOST, PortInUseError


def listen(port: int) -> socket.socket:
    """A socket that listens on a port of this machine alone, 0 for any; PortInUseError when it is taken."""
    try:
        return socket.create_server((HOST, port))
    except OSError as exc:
        raise PortInUseError(port, "--port") from exc


def url_of(listener: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listener.getsockname()
    return f"http://{host}:{port}"

"""Loopback ports."""

from __future__ import annotations

import socket

from app.errors import StockflowError

HOST = "127.0.0.1"


class PortInUseError(StockflowError):
    """Another program listens on the port."""

    exit_code = 10

    def __init__(self, port: int, flag: str) -> None:
        super().__init__(f"port {port} is in use: choose another with {flag}, or 0 for any free one")


def check_port(port: int, flag: str) -> None:
    """Raise PortInUseError when `port`, asked for with `flag`, cannot be bound; 0 always can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as exc:
            raise PortInUseError(port, flag) from exc

"""The embedded AWS endpoint: moto's server on loopback, in a process of its own.

``python -m embedded.endpoint --port 0`` prints one JSON line ``{"url": ...}`` when it is ready and ends
on SIGTERM. It keeps everything in memory: what it holds is gone with it.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys
import threading

from moto.server import ThreadedMotoServer

_HOST = "127.0.0.1"


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m embedded.endpoint", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    port = int(parser.parse_args().port)
    if port and _in_use(port):
        print(f"embedded AWS: port {port} is in use: choose another, or 0 for any free one", file=sys.stderr)
        return 1
    server = ThreadedMotoServer(ip_address=_HOST, port=port, verbose=False)
    server.start()
    host, bound = server.get_host_and_port()
    print(json.dumps({"url": f"http://{host}:{bound}"}), flush=True)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    done.wait()
    server.stop()
    return 0


def _in_use(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())

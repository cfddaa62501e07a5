"""The embedded AWS endpoint: moto's server on loopback, in a process of its own.

``python -m embedded.endpoint --port 0`` prints one JSON line ``{"url": ...}`` when it is ready and ends
on SIGTERM. It keeps everything in memory: what it holds is gone with it.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading

from moto.server import ThreadedMotoServer

from embedded.ports import HOST, PortInUseError, check_port


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m embedded.endpoint", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    port = int(parser.parse_args().port)
    try:
        check_port(port, "--port")
    except PortInUseError as exc:
        print(f"embedded AWS: {exc}", file=sys.stderr)
        return exc.exit_code
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would log every request
    server = ThreadedMotoServer(ip_address=HOST, port=port, verbose=False)
    server.start()
    host, bound = server.get_host_and_port()
    print(json.dumps({"url": f"http://{host}:{bound}"}), flush=True)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    done.wait()
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The two local servers of a run: the embedded AWS and the Yahoo stand-in."""

from __future__ import annotations

import json
import queue
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app import contract
from app.errors import StockflowError
from app.processes import Child
from embedded.aws.account import OPERATOR, REGION

SIMULATED = "simulated"
_READY_S = 60.0
_ENDS_WITHIN_S = 40.0
PASSED = (contract.ENV_YAHOO_URL, contract.ENV_SP500_URL, contract.ENV_NOW, contract.ENV_PROGRESS)
"""Variables of a run that no template names: how tasks find the stand-ins of the outside world, and how they report."""

AWS_VARIABLES = {
    **OPERATOR.environ(),
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
"""What a process needs to talk to the embedded AWS, and never to a real account."""


def clean_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's environment without what leads to a real account or another Spark; loopback kept off proxies."""
    kept = {k: v for k, v in environ.items() if not k.startswith(("AWS_", "SPARK_", "PYSPARK_"))}
    no_proxy = ",".join(filter(None, [environ.get("NO_PROXY") or environ.get("no_proxy"), "127.0.0.1,localhost"]))
    return {**kept, **AWS_VARIABLES, "NO_PROXY": no_proxy, "no_proxy": no_proxy}


class ServiceError(StockflowError):
    """A local server did not start or has died."""

    exit_code = 10


class Service:
    """A local server that prints one JSON line when it is ready. clean_up: called when it has ended."""

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        clean_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._clean_up = clean_up
        lines: queue.Queue[str] = queue.Queue()
        self._child = Child([sys.executable, "-m", module, *arguments], environ, lines.put)
        try:
            self.ready = self._first_line(lines)
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self.ready["url"])

    @property
    def pid(self) -> int:
        """Process id."""
        return self._child.pid

    def stop(self) -> None:
        """End it; it ends what it has started first."""
        self._child.stop(_ENDS_WITHIN_S)
        self._clean_up()

    def _first_line(self, lines: queue.Queue[str]) -> dict[str, Any]:
        waited = 0.0
        while waited < _READY_S:
            try:
                found: dict[str, Any] = json.loads(lines.get(timeout=0.2))
                return found
            except queue.Empty:
                waited += 0.2
            if (status := self._child.poll()) is not None and lines.empty():
                self._child.wait()
                raise _died(self._child.last_error(), self.name, status)
        raise ServiceError(f"{self.name} was not ready within {_READY_S:g} s")


def _died(message: str, name: str, status: int) -> ServiceError:
    error = ServiceError(message if message != "no message" else f"{name} ended with status {status}")
    error.exit_code = status if status > 0 else ServiceError.exit_code
    return error


def start_aws(
    port: int,
    environ: Mapping[str, str],
    *,
    assembly: Path | None = None,
    state: Path | None = None,
    passed: Sequence[str] = PASSED,
) -> Service:
    """The embedded AWS, with a cloud assembly deployed where one is given.

    state: folder that outlives it; passed: names of variables of `environ` that every task finds.
    """
    folder = Path(tempfile.mkdtemp(prefix="embedded-aws-"))  # ours to remove, should the server be killed
    flags = {"--assembly": assembly, "--state": state, "--folder": folder}
    arguments = [word for flag, path in flags.items() if path is not None for word in (flag, str(path))]
    arguments += [word for name in passed for word in ("--pass", name)]

    def clean_up() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    return Service("the embedded AWS", "embedded.aws.server", ["--port", str(port), *arguments], environ, clean_up)


def start_yahoo(market: str, port: int, flags: Sequence[str], environ: Mapping[str, str]) -> Service:
    """The Yahoo stand-in over a simulated market or a file of bars; `flags` are its own."""
    if market != SIMULATED:
        market = str(Path(market).expanduser())
    arguments = ["--market", market, "--port", str(port), *flags]
    return Service("the local Yahoo", "embedded.yahoo", arguments, environ)

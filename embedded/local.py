"""stockflow's own stack on this machine: the market, the templates, and the embedded AWS that they deploy into."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from app import contract
from app.errors import StockflowError
from app.ingest.universe import DOW_30
from app.processes import find_java, find_program
from app.storage import Bucket
from embedded.aws.account import client
from embedded.aws.ports import check_port
from embedded.aws.state_folder import claim
from embedded.services import AWS_VARIABLES, SIMULATED, Service, clean_environ, start_aws, start_yahoo
from embedded.synthesis import assembly

if TYPE_CHECKING:
    from embedded.execution import Execution

YAHOO = "yahoo"
_MACHINE_OUTPUT = "StateMachine"
_BUCKET_OUTPUTS = {"market": "MarketBucket", "model": "ModelBucket", "predictions": "PredictionsBucket"}
_BUCKET_VARIABLES = {
    "market": contract.ENV_MARKET_BUCKET,
    "model": contract.ENV_MODEL_BUCKET,
    "predictions": contract.ENV_PREDICTIONS_BUCKET,
}
_CALLS_WITHIN_S = 30


class GoneError(StockflowError):
    """The embedded AWS went away. seen: the execution that was followed, as it was last seen."""

    exit_code = 10
    seen: Execution | None = None


@dataclass(frozen=True)
class LocalOptions:
    """What the stack on this machine is made of. state: folder that outlives it; None forgets all with it."""

    market: str = SIMULATED
    universe: tuple[str, ...] | None = None
    s3_port: int = 0
    yahoo_port: int = 0
    yahoo_flags: tuple[str, ...] = ()
    state: Path | None = None


@dataclass(frozen=True)
class Local:
    """The stack as it runs. deployed: what the embedded AWS says of its deployment; now: where the clock stands."""

    url: str
    market: str
    tickers: tuple[str, ...]
    now: str | None
    deployed: Mapping[str, Any]
    aws_pid: int

    @property
    def machine(self) -> str:
        """ARN of the state machine."""
        return self._output(_MACHINE_OUTPUT)

    def _output(self, name: str) -> str:
        """An output of one of the stacks."""
        return next(
            str(stack["outputs"][name]) for stack in self.deployed["stacks"].values() if name in stack["outputs"]
        )

    def connect(self, service: str) -> Any:
        """An operator's client."""
        return client(service, self.url)

    def calls(self) -> dict[str, Any]:
        """Who called what so far, and with which grant."""
        connection = HTTPConnection(self.url.removeprefix("http://"), timeout=_CALLS_WITHIN_S)
        try:
            connection.request("GET", "/_embedded/iam")
            said: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, HTTPException) as exc:
            raise self._gone(exc) from exc
        finally:
            connection.close()
        return said

    @contextmanager
    def answering(self) -> Iterator[None]:
        """What a service refuses is said in one line; GoneError when nothing answers."""
        try:
            yield
        except ClientError as exc:
            raise StockflowError(f"the embedded AWS refuses: {exc}") from exc
        except BotoCoreError as exc:
            raise self._gone(exc) from exc

    def _gone(self, exc: Exception) -> GoneError:
        return GoneError(f"the embedded AWS at {self.url} does not answer any more: {exc}")

    def exports(self, environ: Mapping[str, str]) -> dict[str, str]:
        """What points boto3, the AWS CLI and the reading commands at it, past a proxy that the environment names."""
        no_proxy = {name: value for name, value in clean_environ(environ).items() if name.upper() == "NO_PROXY"}
        endpoint = {contract.ENV_AWS_ENDPOINT_URL: self.url, "STATE_MACHINE": self.machine}
        buckets = {_BUCKET_VARIABLES[role]: self._output(output) for role, output in _BUCKET_OUTPUTS.items()}
        return {**AWS_VARIABLES, **no_proxy, **endpoint, **buckets}

    def deployment(self) -> str:
        """What was deployed, and what could not be, in a line."""
        missing = ", ".join(f"{count} {kind}" for kind, count in self.deployed["not_created"].items())
        return (
            f"deployed {len(self.deployed['stacks'])} stacks in {self.deployed['seconds']:.1f} s at {self.url};"
            f" not created: {missing or 'nothing'}"
        )

    def buckets(self) -> dict[str, Bucket]:
        """What the run leaves is in these, by their roles."""
        s3 = self.connect("s3")
        return {role: Bucket(self._output(output), s3) for role, output in _BUCKET_OUTPUTS.items()}


def check_machine(options: LocalOptions, environ: Mapping[str, str]) -> None:
    """Find out what is missing before anything is started."""
    find_program("mpirun", "openmpi-bin")
    find_java(environ)
    check_port(options.s3_port, "--s3-port")
    check_port(options.yahoo_port, "--yahoo-port")
    if options.state is not None:
        claim(options.state)


@contextmanager
def running(options: LocalOptions, environ: Mapping[str, str], say: Callable[[str], None]) -> Iterator[Local]:
    """The market and the deployed stack, until the block ends. say: told what is being done."""
    with ExitStack() as stack:
        run_environ = {**clean_environ(environ), contract.ENV_PROGRESS: "json"}
        tickers, market = _open_market(options, run_environ, stack)
        say("synthesising the templates, unless they are there")
        templates = assembly(tickers, run_environ)
        say("deploying them into the embedded AWS")
        aws = start_aws(options.s3_port, run_environ, assembly=templates, state=options.state)
        stack.callback(aws.stop)
        yield Local(aws.url, market, tickers, run_environ.get(contract.ENV_NOW), aws.ready["deployed"], aws.pid)


def _open_market(options: LocalOptions, run_environ: dict[str, str], stack: ExitStack) -> tuple[tuple[str, ...], str]:
    """Start the server that the market needs, point the tasks at it; returns the universe and the market's name.

    With STOCKFLOW_YAHOO_URL set, bars come from there; a file of bars then still says which tickers, and
    at which instant the clock stands.
    """
    elsewhere = run_environ.get(contract.ENV_YAHOO_URL)
    if options.market == YAHOO or (elsewhere and options.market == SIMULATED):
        return options.universe or DOW_30, f"yahoo at {elsewhere}" if elsewhere else YAHOO
    yahoo: Service = start_yahoo(options.market, options.yahoo_port, options.yahoo_flags, run_environ)
    stack.callback(yahoo.stop)
    run_environ.setdefault(contract.ENV_YAHOO_URL, yahoo.url)
    run_environ.setdefault(contract.ENV_NOW, yahoo.ready["now"])
    return options.universe or tuple(yahoo.ready["tickers"]), options.market

"""The whole pipeline on one machine, in order: servers, ingest, dataset, train, serve, summary.

Each phase is the `stockflow` command itself in a process of its own, linked to the others by S3 alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3

from app import contract
from app.errors import StockflowError
from app.ingest.universe import DOW_30, read_universe
from app.processes import Child
from app.settings import Place, load, place_from_environ
from app.storage import Bucket
from embedded.memory import MemoryWatch
from embedded.screen import Screen
from embedded.services import AWS_VARIABLES, Service, start_aws, start_yahoo
from embedded.summary import collect, write_run_folder

PHASES = ("ingest", "dataset", "train", "serve")
_BUCKETS = {
    contract.ENV_MARKET_BUCKET: "stockflow-market",
    contract.ENV_MODEL_BUCKET: "stockflow-model",
    contract.ENV_PREDICTIONS_BUCKET: "stockflow-predictions",
}


@dataclass(frozen=True)
class Options:
    """What `stockflow run` was asked for."""

    market: str = "simulated"
    universe: str | None = None
    s3_port: int = 0
    yahoo_port: int = 0
    latency_ms: float = 0.0
    fault_share: float = 0.0
    out: Path = Path("build/run")
    flags: tuple[str, ...] = ()


@dataclass
class PhaseRun:
    """How one phase went."""

    name: str
    status: str = "not started"
    wall_s: float = 0.0
    error: str = ""
    exit_code: int = 0
    result: dict[str, Any] = field(default_factory=dict)


def run_pipeline(options: Options, environ: Mapping[str, str]) -> int:
    """Run all phases; returns the exit status of the first that fails, else 0.

    The summary is written in either case. Errors before the first phase (settings, market file, ports)
    are raised as they are.
    """
    settings = load(environ, options.flags)
    phases = [PhaseRun(name) for name in PHASES]
    with ExitStack() as stack:
        stack.enter_context(_only_one_run(options.out))
        screen = stack.enter_context(Screen())
        screen.note(f"market {options.market}: starting the embedded AWS")
        memory = stack.enter_context(MemoryWatch(os.getpid()))
        run_environ = _clean_environ(environ) | {contract.ENV_SETTINGS: settings.model_dump_json()}
        aws = start_aws(options.s3_port, run_environ)
        stack.callback(aws.stop)
        run_environ |= {contract.ENV_AWS_ENDPOINT_URL: aws.url, **_BUCKETS}
        run_environ[contract.ENV_RUN_ID] = datetime.now(UTC).strftime("run-%Y%m%d-%H%M%S")
        tickers = _open_market(options, run_environ, stack)
        place = place_from_environ(run_environ)
        _make_buckets(aws.url)
        checkpoint = stack.enter_context(_checkpoint_folder(options.out))
        for phase in phases:
            _run_phase(phase, _arguments(phase.name, tickers, checkpoint), run_environ, screen)
            if phase.status != "succeeded":
                break
        buckets = _open_buckets(place, aws.url)
        for phase in phases:
            if phase.status == "succeeded":
                phase.result = buckets["market"].get_json(contract.result_key(place.run_id, phase.name))
        summary = collect(options.market, place.run_id, phases, settings, memory.peak_mib)
        write_run_folder(options.out, summary, buckets, place.run_id)
    return screen.conclude(summary, phases, options.out)


def _open_market(options: Options, run_environ: dict[str, str], stack: ExitStack) -> tuple[str, ...]:
    """Start the server that the market needs, point the run at it, and return the universe."""
    elsewhere = run_environ.get(contract.ENV_YAHOO_URL)
    asked = read_universe(options.universe) if options.universe else None
    if options.market == "yahoo" or (elsewhere and options.market == "simulated"):
        return asked or DOW_30
    yahoo: Service = start_yahoo(
        options.market, options.yahoo_port, options.latency_ms, options.fault_share, run_environ
    )
    stack.callback(yahoo.stop)
    run_environ.setdefault(contract.ENV_YAHOO_URL, yahoo.url)
    run_environ.setdefault(contract.ENV_NOW, yahoo.ready["now"])
    return asked or tuple(yahoo.ready["tickers"])


def _arguments(phase: str, tickers: tuple[str, ...], checkpoint: Path) -> list[str]:
    extra = {"ingest": ["--tickers", ",".join(tickers)], "serve": ["--checkpoint", str(checkpoint)]}
    return [phase, *extra.get(phase, [])]


def _run_phase(phase: PhaseRun, arguments: list[str], environ: Mapping[str, str], screen: Screen) -> None:
    started = time.perf_counter()
    phase.status = "running"
    screen.begin(phase.name)

    def on_line(line: str) -> None:
        try:
            said = json.loads(line)
            screen.progress(said["phase"], said["done"], said["total"], said["note"])
        except (ValueError, KeyError, TypeError):
            pass  # the phase's closing line: the table says it better

    variables = {**environ, contract.ENV_PROGRESS: "json"}
    child = Child([sys.executable, "-m", "app.cli", *arguments], variables, on_line)
    try:
        status = child.wait()
    except BaseException:
        phase.status = "interrupted"
        raise
    finally:
        child.stop()
        phase.wall_s = time.perf_counter() - started
    phase.status = "failed" if status else "succeeded"
    if status:
        phase.exit_code = status if status > 0 else 128 - status
        phase.error = child.last_error().removeprefix("stockflow: ")
        if status < 0:
            phase.error = f"killed by signal {-status}"
    screen.end(phase.name, phase.status, phase.wall_s)


def _clean_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's environment without what leads to a real account, and with loopback kept off proxies."""
    kept = {k: v for k, v in environ.items() if not k.startswith("AWS_")}
    no_proxy = ",".join(filter(None, [environ.get("NO_PROXY") or environ.get("no_proxy"), "127.0.0.1,localhost"]))
    return {**kept, **AWS_VARIABLES, "NO_PROXY": no_proxy, "no_proxy": no_proxy}


def _client(endpoint: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=AWS_VARIABLES["AWS_DEFAULT_REGION"],
        aws_access_key_id=AWS_VARIABLES["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=AWS_VARIABLES["AWS_SECRET_ACCESS_KEY"],
    )


def _make_buckets(endpoint: str) -> None:
    client = _client(endpoint)
    for name in _BUCKETS.values():
        client.create_bucket(Bucket=name)


def _open_buckets(place: Place, endpoint: str) -> dict[str, Bucket]:
    client = _client(endpoint)
    return {
        "market": Bucket(place.market_bucket, client),
        "model": Bucket(place.model_bucket, client),
        "predictions": Bucket(place.predictions_bucket, client),
    }


@contextmanager
def _only_one_run(out: Path) -> Iterator[None]:
    """Refuse a second run into the same folder while one is going on."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with Path(out.parent, f".{out.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise StockflowError(
                f"another run is writing {out}: wait for it, or choose another folder with --out"
            ) from exc
        yield


@contextmanager
def _checkpoint_folder(out: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".stream-", dir=out.parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder, "checkpoint")

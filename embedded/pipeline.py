"""The whole pipeline on one machine, in order: servers, ingest, dataset, train, promote, serve, summary.

Each phase is the `stockflow` command itself in a process of its own, linked to the others by S3 alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app import contract
from app.errors import StockflowError, StorageError
from app.ingest.universe import DOW_30, read_universe
from app.processes import Child, find_java, find_program
from app.settings import Place, load, place_from_environ
from app.storage import Bucket
from embedded.memory import MemoryWatch
from embedded.ports import check_port
from embedded.screen import Screen
from embedded.services import SIMULATED, clean_environ, s3_client, start_aws, start_yahoo
from embedded.summary import LOGS, check_run_folder, collect, write_run_folder

PHASES = ("ingest", "dataset", "train", "promote", "serve")
YAHOO = "yahoo"
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
    run_id: str | None = None
    s3_port: int = 0
    yahoo_port: int = 0
    yahoo_flags: tuple[str, ...] = ()
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

    The summary is written whenever a phase has started. Errors before that (settings, market file, ports)
    are raised as they are, and leave an earlier run's results alone.
    """
    settings = load(environ, options.flags)
    asked = read_universe(options.universe) if options.universe is not None else None
    out = check_run_folder(options.out)
    _check_machine(options, environ)
    phases = [PhaseRun(name) for name in PHASES]
    with ExitStack() as stack:
        stack.enter_context(_only_one_run(out))
        screen = stack.enter_context(Screen())
        screen.note(f"market {options.market}: starting the embedded AWS")
        memory = stack.enter_context(MemoryWatch(os.getpid()))
        run_environ = clean_environ(environ)
        aws = start_aws(options.s3_port, run_environ)
        stack.callback(aws.stop)
        run_environ |= {contract.ENV_AWS_ENDPOINT_URL: aws.url, **_BUCKETS}
        run_environ[contract.ENV_RUN_ID] = options.run_id or datetime.now(UTC).strftime("run-%Y%m%d-%H%M%S")
        place = place_from_environ(run_environ)
        tickers, market = _open_market(options, asked, run_environ, stack)
        run_environ[contract.ENV_SETTINGS] = settings.model_dump_json()
        buckets = _make_buckets(place, aws.url)
        work = stack.enter_context(_work_folder(out))
        try:
            for phase in phases:
                _run_phase(phase, _arguments(phase.name, tickers, work), run_environ, screen, work)
                if phase.status != "succeeded":
                    break
        finally:
            lost = _read_results(phases, buckets["market"], place.run_id)
            summary = collect(market, place.run_id, phases, settings, memory.peak_mib)
            write_run_folder(out, summary, {} if lost else buckets, place.run_id, work / LOGS)
        if lost and all(phase.status == "succeeded" for phase in phases):
            raise lost
    return screen.conclude(summary, phases, options.out)


def _check_machine(options: Options, environ: Mapping[str, str]) -> None:
    """Find out what is missing before anything is started."""
    find_program("mpirun", "openmpi-bin")
    find_java(environ)
    check_port(options.s3_port, "--s3-port")
    check_port(options.yahoo_port, "--yahoo-port")


def _open_market(
    options: Options, asked: tuple[str, ...] | None, run_environ: dict[str, str], stack: ExitStack
) -> tuple[tuple[str, ...], str]:
    """Start the server that the market needs, point the run at it; returns the universe and the market's name.

    With STOCKFLOW_YAHOO_URL set, bars come from there; a file of bars then still says which tickers, and
    at which instant the run's clock stands.
    """
    elsewhere = run_environ.get(contract.ENV_YAHOO_URL)
    if options.market == YAHOO or (elsewhere and options.market == SIMULATED):
        return asked or DOW_30, f"yahoo at {elsewhere}" if elsewhere else YAHOO
    yahoo = start_yahoo(options.market, options.yahoo_port, options.yahoo_flags, run_environ)
    stack.callback(yahoo.stop)
    run_environ.setdefault(contract.ENV_YAHOO_URL, yahoo.url)
    run_environ.setdefault(contract.ENV_NOW, yahoo.ready["now"])
    return asked or tuple(yahoo.ready["tickers"]), options.market


def _arguments(phase: str, tickers: tuple[str, ...], work: Path) -> list[str]:
    if phase == "ingest":
        universe = work / "universe.txt"  # a universe can be longer than a command line
        universe.write_text("\n".join(tickers))
        return [phase, "--tickers", str(universe)]
    return [phase, "--checkpoint", str(work)] if phase == "serve" else [phase]


def _run_phase(phase: PhaseRun, arguments: list[str], environ: Mapping[str, str], screen: Screen, work: Path) -> None:
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
    with Path(work, LOGS, f"{phase.name}.log").open("w") as log:
        child = Child(
            [sys.executable, "-m", "app.cli", *arguments], variables, on_line, lambda line: print(line, file=log)
        )
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
        phase.error = child.last_error()
        if status < 0:
            phase.error = f"killed by signal {-status}"
    screen.end(phase.name, phase.status, phase.wall_s)


def _make_buckets(place: Place, endpoint: str) -> dict[str, Bucket]:
    client = s3_client(endpoint)
    names = {"market": place.market_bucket, "model": place.model_bucket, "predictions": place.predictions_bucket}
    for name in names.values():
        client.create_bucket(Bucket=name)
    return {role: Bucket(name, client) for role, name in names.items()}


def _read_results(phases: Sequence[PhaseRun], market: Bucket, run_id: str) -> StorageError | None:
    """Fill in what the phases stored; returns the error when the embedded S3 has gone."""
    try:
        for phase in phases:
            if phase.status == "succeeded":
                phase.result = market.get_json(contract.result_key(run_id, phase.name))
        market.exists(contract.plan_key(run_id))
    except StorageError as exc:
        return exc
    return None


@contextmanager
def _only_one_run(out: Path) -> Iterator[None]:
    """Refuse a second run into the same folder while one is going on."""
    with Path(out.parent, f".{out.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise StockflowError(
                f"another run is writing {out}: wait for it, or choose another folder with --out"
            ) from exc
        yield


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """A folder of the run's own for its logs, its universe and the stream's checkpoint; gone with the run."""
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-work-", dir=out.parent, ignore_cleanup_errors=True) as name:
        Path(name, LOGS).mkdir()
        yield Path(name)

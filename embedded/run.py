"""`stockflow run`: the stack deployed, one execution of its state machine followed to its end, a folder of results."""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from app import contract
from app.errors import SettingsError, StockflowError
from app.ingest.universe import read_universe
from app.rules import RUN_ID_PATTERN, RUN_ID_RULE
from app.settings import Settings, load
from app.storage import Bucket
from embedded.execution import Execution
from embedded.execution_input import settings_input
from embedded.local import GoneError, Local, LocalOptions, check_machine, running
from embedded.market.bars import Market
from embedded.market.simulated import attainable_skills, settings_from_flags, simulate
from embedded.memory import MemoryWatch
from embedded.phase_logs import PhaseLogs, readable
from embedded.phases import PhaseRun, phase_of, read_phases
from embedded.reasons import explain
from embedded.report import conclude
from embedded.screen import Screen
from embedded.services import SIMULATED
from embedded.summary import LOGS, check_run_folder, collect, write_run_folder
from embedded.synthesis import machine_settings
from embedded.unused_grants import judge_calls
from embedded.watch import begin, follow, stop

_INTERRUPTED = 130


@dataclass(frozen=True)
class Options:
    """What `stockflow run` was asked for."""

    market: str = "simulated"
    universe: str | None = None
    run_id: str | None = None
    s3_port: int = 0
    yahoo_port: int = 0
    yahoo_flags: tuple[str, ...] = ()
    state: Path | None = None
    out: Path = Path("build/run")
    flags: tuple[str, ...] = ()

    def local(self, sp500_url: str | None) -> LocalOptions:
        """The stack that it runs on. sp500_url: as of app.ingest.universe.fetch_sp500."""
        universe = read_universe(self.universe, sp500_url) if self.universe is not None else None
        return LocalOptions(self.market, universe, self.s3_port, self.yahoo_port, self.yahoo_flags, self.state)


@dataclass
class Outcome:
    """What an execution came to, as far as it got. gone: the embedded AWS is, and with it all results."""

    execution: Execution
    phases: list[PhaseRun] = field(default_factory=list)
    error: str | None = None
    exit_code: int = 0
    iam: Mapping[str, Any] = field(default_factory=dict)
    gone: bool = False


def run(options: Options, environ: Mapping[str, str]) -> int:
    """Deploy, run one execution, leave its results; returns 0 when it succeeded.

    The summary is written whenever an execution has started; when the embedded AWS went away under it, of what was
    seen until then. Errors before that (settings, market file, ports) are raised as they are, and leave an earlier
    run's results alone, as does an S3 that fails while results are copied.
    """
    settings = load(environ, options.flags)
    run_id = options.run_id or datetime.now(UTC).strftime("run-%Y%m%d-%H%M%S")
    asked = execution_input(settings, run_id)
    local_options = options.local(environ.get(contract.ENV_SP500_URL))
    out = check_run_folder(options.out)
    check_machine(local_options, environ)
    with ExitStack() as stack:
        stack.enter_context(_only_one_run(out))
        screen = stack.enter_context(Screen())
        screen.note(f"market {options.market}: run {run_id}")
        memory = stack.enter_context(MemoryWatch(os.getpid()))
        local = stack.enter_context(running(local_options, environ, screen.note))
        screen.note(local.deployment())
        outcome = _execute(local, asked, screen)
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent)))
        buckets = {} if outcome.gone else local.buckets()
        if buckets:
            _read_results(outcome.phases, buckets, run_id)
        write_logs(local, outcome.execution, work / LOGS)
        used = machine_settings(settings)
        attainable = _attainable(options, local, outcome.phases, used)
        summary = collect(local, run_id, outcome, used, memory.peak_mib, attainable)
        write_run_folder(out, summary, buckets, run_id, work / LOGS, outcome.iam)
    conclude(screen.console, summary, options.out)
    return outcome.exit_code


def execution_input(settings: Settings, run_id: str) -> dict[str, Any]:
    """What the state machine is started with."""
    _check_run_id(run_id)
    return {"run_id": run_id, **settings_input(settings)}


def _execute(local: Local, asked: Mapping[str, Any], screen: Screen) -> Outcome:
    with local.answering():
        arn = begin(local, json.dumps(asked), asked["run_id"])
    try:
        with local.answering():
            return _follow(local, arn, screen)
    except GoneError as gone:
        execution = gone.seen or Execution(arn, asked["run_id"], "RUNNING", datetime.now(UTC), None, ())
        phases = read_phases(execution)
        for phase in phases:
            phase.status = "failed" if phase.status == "running" else phase.status
        return Outcome(execution, phases, str(gone), gone.exit_code, gone=True)


def _follow(local: Local, arn: str, screen: Screen) -> Outcome:
    try:
        execution = follow(local, arn, screen)
    except KeyboardInterrupt:
        execution, _ = stop(local, arn, "interrupted by the user")
        screen.show(execution)
        state = execution.failed_state()
        error = f"{(phase_of(state.name) if state else None) or 'execution'}: interrupted"
        return Outcome(execution, read_phases(execution), error, _INTERRUPTED, judge_calls(local.calls()))
    outcome = Outcome(execution, read_phases(execution), iam=judge_calls(local.calls()))
    if execution.status != "SUCCEEDED":
        outcome.error, outcome.exit_code = explain(execution, PhaseLogs(local.connect))
    return outcome


def _read_results(phases: list[PhaseRun], buckets: Mapping[str, Bucket], run_id: str) -> None:
    """Fill in what the phases stored."""
    market, models = buckets["market"], buckets["model"]
    read = {"train": _trained, "promote": _decided}
    for phase in phases:
        key = contract.result_key(run_id, phase.name)
        if phase.name in read:
            phase.result = read[phase.name](models, run_id)
        elif market.exists(key):
            phase.result = market.get_json(key)


def _trained(models: Bucket, run_id: str) -> dict[str, Any]:
    """The model that the run trained, and how good it is."""
    model_id = _candidate(models, run_id)
    if model_id is None:
        return {}
    metrics = models.get_json(contract.model_key(model_id, contract.MODEL_METRICS))
    where = f"s3://{models.name}/{contract.model_prefix(model_id)}"
    return {"rows": metrics["windows_train"], "where": where, "model_id": model_id, "metrics": metrics}


def _decided(models: Bucket, run_id: str) -> dict[str, Any]:
    """What the gate decided about it."""
    model_id = _candidate(models, run_id)
    key = contract.model_key(model_id or "", contract.MODEL_DECISION)
    if model_id is None or not models.exists(key):
        return {}
    decision = models.get_json(key)
    return {**decision, "rows": decision["windows"], "where": f"s3://{models.name}/{key}"}


def _candidate(models: Bucket, run_id: str) -> str | None:
    key = contract.candidate_key(run_id)
    return str(models.get_json(key)["model_id"]) if models.exists(key) else None


def _attainable(options: Options, local: Local, phases: list[PhaseRun], settings: Settings) -> dict[int, float]:
    """On the simulated market the skill that its planted signal allows on the test days, by horizon."""
    days = [day for phase in phases if phase.name == "dataset" and phase.result for day in phase.result["days"]["test"]]
    if local.market != SIMULATED or not days:
        return {}
    simulated = settings_from_flags([word for flag, word in pairwise(options.yahoo_flags) if flag == "--sim"])
    whole, dataset = simulate(simulated), settings.dataset
    market = Market({ticker: bars for ticker, bars in whole.bars.items() if ticker in local.tickers})
    tested = {date.fromisoformat(day) for day in days} & set(market.days)
    return attainable_skills(simulated, market, dataset.horizons_min, tested, dataset.window_min) if tested else {}


def write_logs(local: Local, execution: Execution, folder: Path) -> None:
    """What each phase's tasks said, one file a phase."""
    folder.mkdir(parents=True)
    with suppress(BotoCoreError, ClientError):
        for label, line in PhaseLogs(local.connect).new_lines(execution):
            phase = phase_of(label.split()[0]) or "machine"
            with (folder / f"{phase}.log").open("a") as log:
                print(f"{label}: {readable(line)}", file=log)


def _check_run_id(run_id: str) -> None:
    if not re.fullmatch(RUN_ID_PATTERN, run_id):
        raise SettingsError(f"{contract.ENV_RUN_ID}={run_id!r}: {RUN_ID_RULE}")


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

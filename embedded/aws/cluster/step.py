"""A step of a cluster as local processes: Spark drivers, or a plain command, one after the other."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.errors import StockflowError
from embedded.aws.account import client
from embedded.aws.cluster.logs import LogFiles
from embedded.aws.cluster.nodes import Nodes
from embedded.aws.cluster.submit import Desk, Submission, on_this_machine, translate
from embedded.aws.host import Host

_POLL_S: Final = 0.1
_OUTPUTS: Final = ("stdout", "stderr")
_RUNNER: Final = "command-runner.jar"
_PATIENCE: Final = Config(retries={"mode": "standard", "max_attempts": 6})
"""S3 may fail for some seconds before a step does."""


class UnknownJar(StockflowError):
    """A step names a jar that this machine does not have."""

    exit_code = 10

    def __init__(self, jar: str) -> None:
        super().__init__(f"{jar} does not run here: name {_RUNNER}, and the command as its Args")
        self.jar = jar


@dataclass(frozen=True)
class Outcome:
    """How a process ended, the last that it said, in which of its outputs, and whether it was stopped."""

    status: int
    said: str
    where: str = "stderr"
    stopped: bool = False

    def __str__(self) -> str:
        if 128 < self.status <= 128 + signal.NSIG:
            return f"killed by signal {self.status - 128}"
        return f"exit status {self.status}: {self.said}" if self.said else f"exit status {self.status}"


class StepRun:
    """One step at work, in a thread of its own.

    application: what YARN would number it; on_end: called with its outcome at the end, in that thread.
    """

    def __init__(
        self, host: Host, nodes: Nodes, step: Any, application: str, on_end: Callable[[StepRun, Outcome], None]
    ) -> None:
        self.step = step
        self.becomes = ""
        self._host = host
        self._nodes = nodes
        self._application = application
        self._on_end = on_end
        self._stop = threading.Event()
        self._grace_s = 0.0
        self._logs = LogFiles(
            nodes.folder / "logs" / step.id, f"steps/{step.id}", ("controller", *_OUTPUTS), nodes.store
        )
        self._thread = threading.Thread(target=self._run, name=f"step {step.id}", daemon=True)

    def log_file(self, name: str) -> str | None:
        """Where a file of its logs lies in S3."""
        return self._nodes.store.uri(f"steps/{self.step.id}/{name}.gz") if self._nodes.store else None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, becomes: str, grace_s: float) -> None:
        """End it early: SIGTERM, and SIGKILL after `grace_s`. becomes: the step's state then. The first call counts."""
        if not self._stop.is_set():
            self.becomes, self._grace_s = becomes, grace_s
            self._stop.set()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()

    def _run(self) -> None:
        words = [str(word) for word in self.step.args]
        began = time.monotonic()
        self._note(f"INFO startExec 'hadoop jar {self.step.jar} {shlex.join(words)}'")
        try:
            outcome = self._carry_out(words)
        except Exception as exc:  # whatever it is, a step has an end
            outcome = Outcome(1, f"{type(exc).__name__}: {exc}")
            self._logs.line("stderr", outcome.said)
        took_s = int(time.monotonic() - began)
        ending = "INFO Step succeeded" if outcome.status == 0 else "WARN Step failed"
        self._note(f"INFO total process run time: {took_s} seconds")
        self._note(f"{ending} with exitCode {outcome.status} and took {took_s} seconds")
        self._logs.close()
        self._on_end(self, outcome)

    def _carry_out(self, words: Sequence[str]) -> Outcome:
        if self.step.jar.rpartition("/")[2] != _RUNNER:
            raise UnknownJar(self.step.jar)
        if words[:1] == ["spark-submit"]:
            return self._submit(words[1:])
        folder = self._nodes.folder / "steps" / self.step.id
        folder.mkdir(parents=True)
        return self._process(on_this_machine(words, self._nodes.hdfs), {}, folder, self._logs.line, "stderr")

    def _submit(self, words: Sequence[str]) -> Outcome:
        """Drivers, one after the other has failed, as many as YARN would start."""
        attempt = 1
        while True:
            outcome, attempts = self._drive(words, attempt)
            if outcome.status == 0 or attempt >= attempts or self._stop.is_set():
                return outcome
            self._logs.line("stderr", f"Driver {attempt} of at most {attempts} failed ({outcome}): starting the next")
            attempt += 1

    def _drive(self, words: Sequence[str], attempt: int) -> tuple[Outcome, int]:
        """One driver in a fresh folder, as a YARN container is; and how many drivers there may be."""
        container = f"container_{self._application}_{attempt:02d}_000001"
        folder = self._nodes.folder / "containers" / container
        desk = Desk(_spark_home(), sys.executable, self._host.cores.count, folder, self._nodes.hdfs)
        submission = translate(words, desk)
        if attempt == 1:
            for setting, reason in submission.left_out:
                self._note(f"INFO left out here: {setting}: {reason}")
        store = self._nodes.store if submission.clustered else None
        place = f"containers/application_{self._application}/{container}"
        outputs = LogFiles(self._nodes.folder / "logs" / container, place, _OUTPUTS, store)

        def said(name: str, line: str) -> None:
            self._logs.line(name, line)
            outputs.line(name, line)

        try:
            desk.scratch.mkdir(parents=True)
            self._fetch(submission)
            # Spark joins both outputs of a Python driver on its own standard output.
            return self._process(submission.argv, submission.environ, folder, said, "stdout"), submission.attempts
        except (ClientError, BotoCoreError) as exc:
            said("stderr", f"{type(exc).__name__}: {exc}")
            return Outcome(1, str(exc)), submission.attempts
        finally:
            outputs.close()
            shutil.rmtree(folder, ignore_errors=True)

    def _fetch(self, submission: Submission) -> None:
        """Bring the files of a submission, with the rights of the nodes."""
        s3 = client("s3", self._host.endpoint, self._nodes.credentials, _PATIENCE)
        for url, path in submission.fetched.items():
            bucket, key = _place(url)
            path.write_bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        for url in submission.checked:
            bucket, key = _place(url)
            s3.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].close()

    def _process(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        folder: Path,
        said: Callable[[str, str], None],
        telling: str,
    ) -> Outcome:
        """Run a program to its end. telling: the output whose last line says most of a failure."""
        last = dict.fromkeys(_OUTPUTS, "")

        def heard(name: str, line: str) -> None:
            last[name] = line.strip() or last[name]
            said(name, line)

        self._note(f"INFO here: {shlex.join(argv)}")
        child = self._host.start(
            argv,
            self._host.environ(self._nodes.credentials, environ),
            on_line=lambda line: heard("stdout", line),
            on_error=lambda line: heard("stderr", line),
            cwd=folder,
        )
        self._note(f"INFO ProcessRunner started child process {child.pid}")
        while child.poll() is None and not self._stop.wait(_POLL_S):
            pass
        stopped = child.poll() is None
        child.stop(self._grace_s)  # also what a process leaves behind, which would hold its output open
        status = self._host.finish(child)
        self._note(f"INFO waitProcessCompletion ended with exit code {status}")
        where = telling if last[telling] else next(name for name in _OUTPUTS if name != telling)
        return Outcome(status, last[where], where, stopped)

    def _note(self, text: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._logs.line("controller", f"{now} {text}")


def _spark_home() -> Path:
    """Where this interpreter's Spark lies."""
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise StockflowError("pyspark is not installed: install it beside this program")
    return Path(spec.origin).parent


def _place(url: str) -> tuple[str, str]:
    bucket, _, key = url.partition("://")[2].partition("/")
    return bucket, key

"""The machine that stands in for AWS's fleets: its cores, images and credentials, and how a task's process starts."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from moto.sts.models import sts_backends

from app.processes import Child
from embedded.aws.account import ACCOUNT, PARTITION, REGION, Credentials
from embedded.aws.iam.trust import check_trust
from embedded.aws.images import Images
from embedded.aws.logs import LogStream

_HOUR_S = 3600
_NO_OTHER_ACCOUNT = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
"""So that a task without credentials finds none, rather than the user's own."""


class Cores:
    """A number of cores that tasks wait for, first come first served."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = count
        self._queue: list[object] = []
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, wanted: int, given_up: Callable[[], bool] = lambda: False) -> Iterator[bool]:
        """Wait for cores and hold them; more than there are counts as all.

        Yields False, holding none, when `given_up` answers true while waiting.
        """
        needed, ticket = max(1, min(wanted, self.count)), object()
        with self._changed:
            self._queue.append(ticket)
            while not given_up() and not (self._queue[0] is ticket and self._free >= needed):
                self._changed.wait(0.2)
            self._queue.remove(ticket)
            got = not given_up()
            self._free -= needed if got else 0
            self._changed.notify_all()
        try:
            yield got
        finally:
            with self._changed:
                self._free += needed if got else 0
                self._changed.notify_all()


class Host:
    """endpoint: URL of the embedded AWS; folder: where tasks keep files; environ: variables that every task finds.

    environ holds what a container would have from its network and its image's system: PATH, and whatever the
    caller puts there to stand in for the world outside. It holds no credentials.
    """

    def __init__(self, *, endpoint: str, folder: Path, environ: Mapping[str, str], cores: int | None = None) -> None:
        self.endpoint = endpoint
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.images = Images()
        self.cores = Cores(cores or len(os.sched_getaffinity(0)))
        home = folder / "home"  # a task leaves its caches there, not in the user's
        home.mkdir(exist_ok=True)
        self._scratch = folder / "tmp"
        self._scratch.mkdir(exist_ok=True)
        self._environ = {name: value for name, value in environ.items() if name != "TMPDIR"} | {"HOME": str(home)}
        self._children: dict[Child, Path] = {}
        self._closed = False
        self._lock = threading.Lock()

    def credentials(self, role: str, session: str, principal: str) -> Credentials:
        """Temporary credentials of a role, by its ARN, for a service by its principal.

        session: shows in the caller's identity. NotTrusted where the role does not exist or trusts others only.
        """
        check_trust(role, principal)
        assumed = sts_backends[ACCOUNT][PARTITION].assume_role(
            region_name=REGION,
            role_session_name=session[:64],
            role_arn=role,
            policy="",
            duration=12 * _HOUR_S,
            external_id="",
        )
        return Credentials(assumed.access_key_id, assumed.secret_access_key, assumed.session_token)

    def environ(self, credentials: Credentials, variables: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of a task: the machine's, the endpoint, the role's credentials, then its own."""
        programs = os.pathsep.join([str(Path(sys.executable).parent), self._environ.get("PATH", os.defpath)])
        return {
            **self._environ,
            "PATH": programs,
            **_NO_OTHER_ACCOUNT,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            **credentials.environ(),
            **variables,
        }

    def start(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        log: LogStream | None = None,
        *,
        on_line: Callable[[str], None] = lambda line: None,
        on_error: Callable[[str], None] = lambda line: None,
        cwd: Path | None = None,
    ) -> Child:
        """Start a task's process; both its outputs go to the log, and each to its own `on_line` or `on_error` too.

        It has a folder for temporary files of its own, which goes with it.
        Linux ends it with the thread that calls this, so the caller waits for it in that thread.
        """

        def said(line: str) -> None:
            if log is not None:
                log.line(line)
            on_line(line)

        def complained(line: str) -> None:
            if log is not None:
                log.line(line)
            on_error(line)

        with self._lock:
            if self._closed:
                raise RuntimeError("the embedded AWS is going down")
            # A short path: programs put sockets there, whose names may have 108 characters.
            scratch = Path(tempfile.mkdtemp(prefix="", dir=self._scratch))
            try:
                child = Child(argv, {"TMPDIR": str(scratch), **environ}, said, complained, cwd=cwd)
            except BaseException:
                scratch.rmdir()
                raise
            self._children[child] = scratch
        return child

    def finish(self, child: Child) -> int:
        """Wait for a task's process; its exit status as a container has it: 128 + the signal that killed it."""
        try:
            status = child.wait(end_group=True)
        finally:
            child.stop()
            with self._lock:
                scratch = self._children.pop(child)
            shutil.rmtree(scratch, ignore_errors=True)
        return status if status >= 0 else 128 - status

    @property
    def busy(self) -> bool:
        """Whether a task runs."""
        with self._lock:
            return bool(self._children)

    def close(self) -> None:
        """Stop every task that still runs, all at once."""
        with self._lock:
            self._closed = True
            running = list(self._children)
        stopping = [threading.Thread(target=child.stop) for child in running]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

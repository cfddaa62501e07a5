"""What outlives the embedded AWS in a folder: objects as they are written, executions and logs as it goes down.

    objects/<stack>.<logical id>/<key>.object    the newest version of each object of the deployment's buckets
    executions/<name>.json                       DescribeExecution and GetExecutionHistory of what has ended
    jobs/<id>.json                               DescribeJobs of what has ended: it names the log streams
    logs/<group>/<stream>.json                   log events

Buckets go by their logical ids, so a deployment with other physical names finds its objects again. An object is
written whole under a temporary name first: what lies in the folder is always an object that a task has stored.
"""

from __future__ import annotations

import io
import json
import os
import re
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from moto.batch.models import batch_backends
from moto.logs.models import logs_backends
from moto.s3.models import s3_backends
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from app.errors import StockflowError
from embedded.aws.account import ACCOUNT, PARTITION, REGION, client
from embedded.aws.batch.job import PastJob
from embedded.aws.deployment.deploy import Deployed
from embedded.aws.states.past import PastExecution

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_OBJECT = ".object"
_WRITES = frozenset({"PUT", "POST", "DELETE"})
_S3_SIGNED = re.compile(r"Credential=[^/]+/[^/]+/[^/]+/s3/aws4_request")
_OK = 300


class StateInUse(StockflowError):
    """The folder holds something else."""

    exit_code = 10


def claim(folder: Path) -> None:
    """Make the folder of a state, or take one; StateInUse when it is somebody else's or cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / "objects").is_dir():
            raise StateInUse(f"{folder} holds something else than an embedded AWS's state: name a new folder")
        (folder / "objects").mkdir(exist_ok=True)
    except OSError as exc:
        raise StateInUse(f"{folder} cannot be written ({exc.strerror}): name another folder") from exc


class StateFolder:
    """WSGI application around moto's: hands requests on, and copies what they wrote once a folder is open."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self._folder: Path | None = None
        self._buckets: dict[str, str] = {}
        self._lock = threading.Lock()

    def open(self, folder: Path, deployed: Deployed, endpoint: str) -> None:
        """Put back what a claimed folder holds, and keep what is written from now on."""
        self._buckets = {
            resource.id: f"{name}.{logical}"
            for name, stack in deployed.stacks.items()
            for logical, resource in stack.resources.items()
            if resource.kind == "AWS::S3::Bucket"
        }
        s3 = client("s3", endpoint)
        for bucket, name in self._buckets.items():
            for key, path in _objects(folder / "objects" / name):
                s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
        _restore_logs(folder / "logs")
        _restore_jobs(folder / "jobs")
        _restore_executions(folder / "executions")
        self._folder = folder

    def close(self) -> None:
        """Keep executions and logs."""
        if self._folder is not None:
            _keep_logs(self._folder / "logs")
            _keep_jobs(self._folder / "jobs")
            _keep_executions(self._folder / "executions")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer as moto does."""
        if self._folder is None or environ["REQUEST_METHOD"] not in _WRITES or not _is_s3(environ):
            return self._app(environ, start_response)
        asked = _Asked(environ)
        said: list[str] = []

        def remember(status: str, *args: Any) -> Any:
            said.append(status)
            return start_response(status, *args)

        answer = list(self._app(environ, remember))
        if said and int(said[0].split()[0]) < _OK and asked.bucket in self._buckets:
            for key in asked.objects():
                self._copy(self._folder, asked.bucket, key)
        return answer

    def _copy(self, folder: Path, bucket: str, key: str) -> None:
        """Bring the folder's copy of an object to what the bucket holds."""
        place = _place(folder / "objects" / self._buckets[bucket], key)
        with self._lock:
            held = s3_backends[ACCOUNT][PARTITION].get_object(bucket, key)
            if held is None:
                place.unlink(missing_ok=True)
            else:
                _write(place, held.value)


class _Asked:
    """Which objects a writing request of S3 is about, path style."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        bucket, _, self._key = unquote(environ["PATH_INFO"].lstrip("/")).partition("/")
        self.bucket = bucket
        self._body = b""
        if not self._key and environ["REQUEST_METHOD"] == "POST":  # DeleteObjects names them in its body
            self._body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = io.BytesIO(self._body)

    def objects(self) -> list[str]:
        """Their keys."""
        if self._key:
            return [self._key]
        if not self._body.startswith(b"<"):
            return []
        root = ElementTree.fromstring(self._body)  # noqa: S314 - moto has parsed it already
        return [node.text or "" for node in root.iter() if node.tag.endswith("Key")]


def _is_s3(environ: WSGIEnvironment) -> bool:
    return _S3_SIGNED.search(environ.get("HTTP_AUTHORIZATION", "")) is not None


def _place(folder: Path, key: str) -> Path:
    """A key's file. Each part is quoted, and the last marked, so that `a` and `a/b` can both be objects."""
    *parents, name = (quote(part, safe=" =+@,()") or "%" for part in key.split("/"))
    return folder.joinpath(*parents, f"{name}{_OBJECT}")


def _objects(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob(f"*{_OBJECT}")):
        parts = path.relative_to(folder).parts
        names = [*parts[:-1], parts[-1].removesuffix(_OBJECT)]
        yield "/".join("" if name == "%" else unquote(name) for name in names), path


def _write(place: Path, body: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{place.name}-{threading.get_ident()}")
    fresh.write_bytes(body)
    os.replace(fresh, place)


def _keep_logs(folder: Path) -> None:
    for group in logs_backends[ACCOUNT][REGION].groups.values():
        for stream in group.streams.values():
            events = [{"timestamp": event.timestamp, "message": event.message} for event in stream.events]
            _write(
                folder / quote(group.name, safe="") / f"{quote(stream.log_stream_name, safe='')}.json", _json(events)
            )


def _restore_logs(folder: Path) -> None:
    backend = logs_backends[ACCOUNT][REGION]
    for path in sorted(folder.glob("*/*.json")):
        group, stream = unquote(path.parent.name), unquote(path.stem)
        backend.ensure_log_group(group)
        backend.create_log_stream(group, stream)
        events = json.loads(path.read_bytes())
        if events:
            backend.put_log_events(group, stream, events)


def _keep_jobs(folder: Path) -> None:
    for job in batch_backends[ACCOUNT][REGION]._jobs.values():
        described = job.describe()
        if not isinstance(job, PastJob) and described["status"] in {"SUCCEEDED", "FAILED"}:
            _write(folder / f"{quote(job.job_id, safe='')}.json", _json(described))


def _restore_jobs(folder: Path) -> None:
    past = [PastJob(json.loads(path.read_bytes())) for path in sorted(folder.glob("*.json"))]
    batch_backends[ACCOUNT][REGION]._jobs |= {job.job_id: job for job in past}


def _keep_executions(folder: Path) -> None:
    for machine in stepfunctions_parser_backends[ACCOUNT][REGION].state_machines:
        for execution in machine.executions:
            if not isinstance(execution, PastExecution) and execution.status != "RUNNING":
                _write(folder / f"{quote(execution.name, safe='')}.json", _json(PastExecution.describe(execution)))


def _restore_executions(folder: Path) -> None:
    """Those of a machine that is deployed under the same name."""
    backend = stepfunctions_parser_backends[ACCOUNT][REGION]
    machines = {machine.arn: machine for machine in backend.state_machines}
    for path in sorted(folder.glob("*.json")):
        past = PastExecution(json.loads(path.read_bytes()), machines)
        if past.state_machine is not None:
            past.state_machine.executions.append(past)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()

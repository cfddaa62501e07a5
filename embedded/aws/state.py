"""What outlives the embedded AWS in a folder.

    objects/<stack>.<logical id>/<key>.object    the newest version of each object of the deployment's buckets: its body
    executions/<machine>.<name>.json             DescribeExecution and GetExecutionHistory of what has ended
    jobs/<id>.json                               DescribeJobs of what has ended: it names the log streams
    logs/<group>/<stream>.json                   log events

Objects are kept as they are written; the rest whenever an execution ends, and as the embedded AWS goes down. After a
`kill -9` what came later than the last end of an execution is missing: an execution that ran, and its logs.
Clusters and training jobs are not kept; their logs are, and what their execution's history says of them.

Buckets go by their logical ids, so a deployment with other physical names finds its objects again. Everything is
written whole under a temporary name first: what lies in the folder is always an object that a task has stored.
"""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from xml.etree import ElementTree

from moto.batch.models import batch_backends
from moto.core.utils import unix_time_millis
from moto.logs.models import LogEvent, logs_backends
from moto.s3.models import s3_backends
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from embedded.aws.account import ACCOUNT, PARTITION, REGION, client
from embedded.aws.batch.job import PastJob, put_back
from embedded.aws.deployment.deploy import Deployed
from embedded.aws.state_folder import file_name, object_file, objects, write
from embedded.aws.states import executions
from embedded.aws.states.past import PastExecution

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_LOG = logging.getLogger(__name__)
_WRITES = frozenset({"PUT", "POST", "DELETE"})
_SERVICE = re.compile(r"/([^/]+)/aws4_request")
_OK = 300


class StateFolder:
    """WSGI application around moto's: hands requests on, and copies what they wrote once a folder is open."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self._folder: Path | None = None
        self._buckets: dict[str, str] = {}
        self._logs = _Logs()
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
            for key, path in objects(folder / "objects" / name):
                s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
        self._logs.restore(folder / "logs")
        past = [PastJob(json.loads(path.read_bytes())) for path in sorted((folder / "jobs").glob("*.json"))]
        put_back(batch_backends[ACCOUNT][REGION], past)
        _restore_executions(folder / "executions")
        self._folder = folder
        executions.ON_END.append(self._keep)

    def close(self) -> None:
        """Keep what has ended since."""
        if self._folder is not None:
            executions.ON_END.remove(self._keep)
            try:
                self._keep_the_rest(self._folder)
                for machine in stepfunctions_parser_backends[ACCOUNT][REGION].state_machines:
                    for execution in machine.executions:
                        if execution.status != "RUNNING" and not _execution_file(self._folder, execution).exists():
                            self._keep(execution)
            except OSError:
                _LOG.exception("not everything will outlive this process")

    def _keep(self, execution: Any) -> None:
        """Keep an execution that has ended, all jobs that have, and all logs."""
        if self._folder is not None:
            self._keep_the_rest(self._folder)  # first: an execution that is there has its jobs and logs
            write(_execution_file(self._folder, execution), _json(PastExecution.describe(execution)))

    def _keep_the_rest(self, folder: Path) -> None:
        with self._lock:
            self._logs.keep(folder / "logs")
            _keep_jobs(folder / "jobs")

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
        place = object_file(folder / "objects" / self._buckets[bucket], key)
        try:
            with self._lock:
                held = s3_backends[ACCOUNT][PARTITION].get_object(bucket, key)
                if held is None:
                    place.unlink(missing_ok=True)
                else:
                    write(place, held.value)
        except OSError as exc:
            _LOG.error("%s of bucket %s will not outlive this process: %s", key, bucket, exc)


class _Asked:
    """Which objects a writing request of S3 is about, path style."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")  # WSGI has unquoted it to bytes
        self.bucket, _, self._key = path.removeprefix("/").partition("/")
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
    """Whether no other service is meant: presigned URLs name S3 in their query, or nowhere."""
    asked = parse_qs(environ.get("QUERY_STRING", ""))
    signed = (environ.get("HTTP_AUTHORIZATION", ""), *asked.get("X-Amz-Credential", ()))
    return all(service == "s3" for text in signed for service in _SERVICE.findall(text))


class _Logs:
    """The log streams of this process and the files that they are kept in."""

    def __init__(self) -> None:
        self._kept: dict[Path, int] = {}

    def keep(self, folder: Path) -> None:
        """Write the streams that have more events than their files."""
        for group in list(logs_backends[ACCOUNT][REGION].groups.values()):
            for stream in list(group.streams.values()):
                place = folder / file_name(group.name) / f"{file_name(stream.log_stream_name)}.json"
                events = list(stream.events)
                if len(events) > self._kept.get(place, -1):
                    write(place, _json(_describe_stream(group, stream, events)))
                    self._kept[place] = len(events)

    def restore(self, folder: Path) -> None:
        """Put the streams back, without PutLogEvents, which refuses what is older than two weeks."""
        backend = logs_backends[ACCOUNT][REGION]
        for path in sorted(folder.glob("*/*.json")):
            kept = json.loads(path.read_bytes())
            backend.ensure_log_group(kept["group"])
            if kept["stream"] not in backend.groups[kept["group"]].streams:
                backend.create_log_stream(kept["group"], kept["stream"])
            stream = backend.groups[kept["group"]].streams[kept["stream"]]
            stream.creation_time = _instant(kept["creationTime"])
            stream.events = [LogEvent(event["ingestionTime"], event) for event in kept["events"]] + stream.events
            stream.stored_bytes = sum(len(event.message) for event in stream.events)
            if stream.events:
                stream.last_ingestion_time = _instant(max(event.ingestion_time for event in stream.events))
            self._kept[path] = len(kept["events"])


def _describe_stream(group: Any, stream: Any, events: list[Any]) -> dict[str, Any]:
    return {
        "group": group.name,
        "stream": stream.log_stream_name,
        "creationTime": int(unix_time_millis(stream.creation_time)),
        "events": [event.to_response_dict() for event in events],
    }


def _instant(at_ms: int) -> datetime:
    """As moto has instants: in UTC without saying so."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).replace(tzinfo=None)


def _keep_jobs(folder: Path) -> None:
    for job in list(batch_backends[ACCOUNT][REGION]._jobs.values()):
        place = folder / f"{file_name(job.job_id)}.json"
        if job.ended and not place.exists():
            write(place, _json(job.describe()))


def _execution_file(folder: Path, execution: Any) -> Path:
    return folder / "executions" / f"{file_name(f'{execution.state_machine.name}.{execution.name}')}.json"


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

"""Lambda functions as processes of their own: the deployed code, its environment, its role, its timeout.

Of AWS's limits the timeout holds, the memory does not. A call that nobody waits for is tried again twice, after
seconds rather than minutes, and then goes to the function's destination for failures.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from moto.awslambda.exceptions import LambdaClientError
from moto.awslambda.models import LambdaFunction, lambda_backends
from moto.logs.models import logs_backends

from app.errors import StockflowError
from app.processes import Child
from embedded.aws.account import ACCOUNT, REGION, client
from embedded.aws.host import Host
from embedded.aws.iam.trust import NotTrusted
from embedded.aws.logs import LogStream

_LOG = logging.getLogger(__name__)
_RUNTIME = Path(__file__).with_name("function_runtime.py")
_DEFAULT_RETRIES = 2
_RETRY_AFTER_S = (1.0, 2.0)
"""AWS waits one minute, then two."""
_MANAGED_VERSION = "$LATEST"
_PRINCIPAL = "lambda.amazonaws.com"
_LOG_TAIL = 4096
"""Bytes of the log in an answer."""
_OF_THE_RUNTIME = ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3")


class NotPermitted(StockflowError):
    """The function's own policy does not let this service call it."""

    exit_code = 10


@dataclass(frozen=True)
class Outcome:
    """What came of a call. payload: the handler's result, or the error as the runtime words it; log: its lines."""

    payload: Any
    failed: bool
    log: str = ""

    def log_tail(self) -> str:
        """The end of the log as an answer's header has it."""
        return base64.b64encode(self.log.encode()[-_LOG_TAIL:]).decode()


class Functions:
    """The functions of this process, run on a host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._packages = _lay_out_packages(Path(tempfile.mkdtemp(prefix="packages-", dir=host.folder)))
        self._unpacked: dict[str, Path] = {}
        self._lock = threading.Lock()

    def call(self, function: Any, event: Any) -> Outcome:
        """Run the handler once and wait for it."""
        request = str(uuid.uuid4())
        code = self._code(function)
        credentials = self._host.credentials(function.role, function.function_name, _PRINCIPAL)
        folder = Path(tempfile.mkdtemp(prefix=f"function-{function.function_name}-", dir=self._host.folder))
        group = str(function.logs_group_name)
        missing = group not in logs_backends[ACCOUNT][REGION].groups  # Lambda makes it then, as the function's role
        log = LogStream(self._host.endpoint, credentials, group, _stream_name(), create_group=missing)
        said: list[str] = []

        def say(line: str) -> None:
            said.append(line)
            log.line(line)

        started = time.perf_counter()
        say(f"START RequestId: {request} Version: {_MANAGED_VERSION}")
        try:
            context = _context(function, request, log)
            call, answer = folder / "call.json", folder / "answer.json"
            call.write_text(json.dumps({"event": event, "handler": function.handler, "context": context}))
            environ = self._host.environ(credentials, _variables(function, code, self._packages, log))
            child = self._host.start(
                [sys.executable, "-S", "-P", str(_RUNTIME), str(call), str(answer)],
                environ,
                log,
                on_line=said.append,
                cwd=code,
            )
            outcome = self._ended(function, request, child, answer, say)
        finally:
            took_ms = (time.perf_counter() - started) * 1000
            say(f"END RequestId: {request}")
            say(f"REPORT RequestId: {request}\tDuration: {took_ms:.2f} ms\tMemory Size: {function.memory_size} MB")
            log.close()
            shutil.rmtree(folder, ignore_errors=True)
        return replace(outcome, log="\n".join(said))

    def call_later(self, function: Any, event: Any) -> None:
        """Run the handler without anybody waiting, again when it fails, and tell the destination in the end."""
        threading.Thread(target=self._call_with_retries, args=(function, event), daemon=True).start()

    def _call_with_retries(self, function: Any, event: Any) -> None:
        settings = function.event_invoke_config[0].response() if function.event_invoke_config else {}
        retries = settings.get("MaximumRetryAttempts", _DEFAULT_RETRIES)
        for attempt in range(retries + 1):
            if attempt:
                time.sleep(_RETRY_AFTER_S[min(attempt, len(_RETRY_AFTER_S)) - 1])
            try:
                outcome = self.call(function, event)
            except NotTrusted:
                _LOG.exception("function %s", function.function_name)
                return
            if not outcome.failed:
                return
        target = settings.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination", "")
        if ":sqs:" in target:
            self._tell_queue(function, target, event, outcome, retries + 1)

    def _tell_queue(self, function: Any, queue_arn: str, event: Any, outcome: Outcome, attempts: int) -> None:
        """With the function's role, as Lambda does."""
        credentials = self._host.credentials(function.role, function.function_name, _PRINCIPAL)
        queues = client("sqs", self._host.endpoint, credentials)
        message = {
            "version": "1.0",
            "timestamp": datetime.now(UTC).isoformat(),
            "requestContext": {
                "functionArn": f"{function.function_arn}:{_MANAGED_VERSION}",
                "condition": "RetriesExhausted",
                "approximateInvokeCount": attempts,
            },
            "requestPayload": event,
            "responseContext": {"statusCode": 200, "functionError": "Unhandled"},
            "responsePayload": outcome.payload,
        }
        *_, account, name = queue_arn.split(":")
        try:
            queues.send_message(QueueUrl=f"{self._host.endpoint}/{account}/{name}", MessageBody=json.dumps(message))
        except queues.exceptions.ClientError:
            _LOG.exception("the failure of %s could not be told to %s", function.function_name, queue_arn)

    def _code(self, function: Any) -> Path:
        """The folder of the deployed code, unpacked once."""
        with self._lock:
            folder = self._unpacked.get(function.code_sha_256)
            if folder is None:
                folder = Path(tempfile.mkdtemp(prefix="code-", dir=self._host.folder))
                with zipfile.ZipFile(io.BytesIO(function.code_bytes)) as archive:
                    archive.extractall(folder)
                self._unpacked[function.code_sha_256] = folder
            return folder

    def _ended(self, function: Any, request: str, child: Child, answer: Path, say: Any) -> Outcome:
        timer = threading.Timer(float(function.timeout), child.stop, kwargs={"grace_s": 0.0})
        timer.start()
        deadline = time.monotonic() + float(function.timeout)
        try:
            status = self._host.finish(child)
        finally:
            timer.cancel()
        if answer.exists():
            said = json.loads(answer.read_text(encoding="utf-8"))
            return Outcome(said.get("result", said.get("error")), "error" in said)
        if time.monotonic() >= deadline:
            kind, message = "Sandbox.Timedout", f"Task timed out after {float(function.timeout):.2f} seconds"
        else:
            cause = "signal: killed" if status == 137 else f"exit status {status}"
            kind, message = "Runtime.ExitError", f"Runtime exited with error: {cause}"
        say(f"RequestId: {request} Error: {message}")
        return Outcome({"errorType": kind, "errorMessage": f"RequestId: {request} Error: {message}"}, True)


def invoke_later(host: Host, function_arn: str, event: Any, *, caller: str, source: str) -> None:
    """Call a function for a service, which the function's own policy must permit.

    caller: the service's principal; source: ARN of what it calls for. NotPermitted otherwise.
    """
    function = lambda_backends[ACCOUNT][REGION].get_function(function_arn)
    if not _permits(function, caller, source):
        raise NotPermitted(f"{function_arn}: its policy does not let {caller} call it for {source}")
    _functions(host).call_later(function, event)


def install(host: Host) -> None:
    """Run the functions of this process on a host."""
    functions = _functions(host)

    def invoke(self: Any, body: Any, request_headers: Any, response_headers: Any) -> str | bytes:
        event = json.loads(body) if body else {}
        if _header(request_headers, "x-amz-invocation-type") == "Event":
            functions.call_later(self, event)
            return b""
        try:
            outcome = functions.call(self, event)
        except NotTrusted as exc:
            raise _CannotAssume from exc
        if outcome.failed:
            response_headers["x-amz-function-error"] = "Unhandled"
        response_headers["x-amz-log-result"] = outcome.log_tail()  # moto takes it out where it was not asked for
        return json.dumps(outcome.payload).encode()

    LambdaFunction.invoke = invoke


class _CannotAssume(LambdaClientError):  # type: ignore[misc]
    """As Lambda answers a call of a function whose role it cannot have."""

    code = 403

    def __init__(self) -> None:
        super().__init__("AccessDeniedException", "The role defined for the function cannot be assumed by Lambda.")


def _header(headers: Mapping[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.lower() == name), "")


@cache
def _functions(host: Host) -> Functions:
    return Functions(host)


def _permits(function: Any, caller: str, source: str) -> bool:
    """Whether a statement of the function's policy lets a service call it for a source."""
    for statement in function.policy.statements:
        principal = statement.get("Principal", {})
        names = principal if isinstance(principal, str) else principal.get("Service", "")
        wanted = statement.get("Condition", {}).get("ArnLike", {}).get("AWS:SourceArn", source)
        if caller in (names if isinstance(names, list) else [names]) and wanted == source:
            return True
    return False


def _lay_out_packages(folder: Path) -> Path:
    """Put the packages that Lambda's runtime brings along into a folder, and no others of this environment."""
    for name in _OF_THE_RUNTIME:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            file = Path(spec.origin)
            place = file.parent if spec.submodule_search_locations else file
            (folder / place.name).symlink_to(place)
    return folder


def _stream_name() -> str:
    return f"{datetime.now(UTC):%Y/%m/%d}/[{_MANAGED_VERSION}]{uuid.uuid4().hex}"


def _context(function: Any, request: str, log: LogStream) -> dict[str, Any]:
    return {
        "function_name": function.function_name,
        "function_version": _MANAGED_VERSION,
        "invoked_function_arn": function.function_arn,
        "memory_limit_in_mb": str(function.memory_size),
        "aws_request_id": request,
        "log_group_name": log.group,
        "log_stream_name": log.stream,
        "timeout_s": float(function.timeout),
    }


def _variables(function: Any, code: Path, packages: Path, log: LogStream) -> dict[str, str]:
    """https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html."""
    return {
        "PYTHONPATH": os.pathsep.join([str(code), str(packages)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        **{name: str(value) for name, value in function.environment_vars.items()},
        "_HANDLER": function.handler,
        "LAMBDA_TASK_ROOT": str(code),
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.run_time}",
        "AWS_LAMBDA_FUNCTION_NAME": function.function_name,
        "AWS_LAMBDA_FUNCTION_VERSION": _MANAGED_VERSION,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_size),
        "AWS_LAMBDA_LOG_GROUP_NAME": log.group,
        "AWS_LAMBDA_LOG_STREAM_NAME": log.stream,
    }

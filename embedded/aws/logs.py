"""CloudWatch log streams, written as AWS's own agents write them: with the credentials of a role."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from embedded.aws.account import Credentials, client

_EVERY_S = 0.5
_EVENTS = 1000
"""Events a request: PutLogEvents takes 10,000, and 1 MiB."""
_LONGEST = 200_000
"""Characters of an event that are kept: PutLogEvents takes 256 KiB."""


class LogStream:
    """A stream that lines are appended to; they are sent every half second, and what is left when it is closed.

    A role that may not write loses the lines, as on AWS: the work goes on. Safe to use from several threads.
    """

    def __init__(
        self, endpoint: str, credentials: Credentials, group: str, stream: str, *, create_group: bool = False
    ) -> None:
        self.group = group
        self.stream = stream
        self._client: Any = client("logs", endpoint, credentials)
        self._create_group = create_group
        self._waiting: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._sender = threading.Thread(target=self._send_always, daemon=True)
        self._sender.start()

    def line(self, text: str) -> None:
        """Append one event."""
        if text:
            with self._lock:
                self._waiting.append({"timestamp": int(time.time() * 1000), "message": text[:_LONGEST]})

    def close(self) -> None:
        """Send what is left."""
        self._done.set()
        self._sender.join()

    def _send_always(self) -> None:
        with contextlib.suppress(ClientError, BotoCoreError):
            if self._create_group:
                with contextlib.suppress(self._client.exceptions.ResourceAlreadyExistsException):
                    self._client.create_log_group(logGroupName=self.group)
            with contextlib.suppress(self._client.exceptions.ResourceAlreadyExistsException):
                self._client.create_log_stream(logGroupName=self.group, logStreamName=self.stream)
        while not self._done.wait(_EVERY_S):
            self._send()
        self._send()

    def _send(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), _EVENTS):
            with contextlib.suppress(ClientError, BotoCoreError):
                self._client.put_log_events(
                    logGroupName=self.group, logStreamName=self.stream, logEvents=waiting[start : start + _EVENTS]
                )

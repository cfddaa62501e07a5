"""The local servers that the arms talk to, with the counters and the CPU time of each arm."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

from app.errors import StockflowError
from embedded.aws.account import client
from embedded.services import SIMULATED, Service, start_aws, start_yahoo
from embedded.yahoo.server import Stats

_AT_ONCE = 64
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Yahoo:
    """A running embedded Yahoo."""

    service: Service

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.service.url

    @property
    def now(self) -> str:
        """The instant at which it stands, ISO 8601."""
        return str(self.service.ready["now"])

    def reset(self) -> Stats:
        """Its counters, which begin anew."""
        connection = _connect(self.url)
        try:
            connection.request("POST", "/stats/reset")
            stats: Stats = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return stats

    def cpu_s(self) -> float:
        """CPU seconds that it has used so far."""
        times = psutil.Process(self.service.pid).cpu_times()
        return float(times.user + times.system)

    def warm(self, paths: Sequence[str]) -> None:
        """Have these charts rendered, so that no arm waits for it. StockflowError when one is refused."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._ask, [paths[index::_AT_ONCE] for index in range(_AT_ONCE)]))

    def _ask(self, paths: Sequence[str]) -> None:
        connection = _connect(self.url)
        try:
            for path in paths:
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                if answer.status != http.HTTPStatus.OK:
                    raise StockflowError(f"the embedded Yahoo answers {path} with status {answer.status}")
        finally:
            connection.close()


@contextmanager
def running_yahoo(flags: Mapping[str, object], environ: Mapping[str, str]) -> Iterator[Yahoo]:
    """An embedded Yahoo over the simulated market; flags by name, a list for one that is repeated."""
    words = [
        word
        for name, value in flags.items()
        for one in (value if isinstance(value, list) else [value])
        for word in (name, str(one))
    ]
    service = start_yahoo(SIMULATED, 0, words, environ)
    try:
        yield Yahoo(service)
    finally:
        service.stop()


@contextmanager
def running_s3(environ: Mapping[str, str]) -> Iterator[str]:
    """An embedded AWS; yields its URL."""
    service = start_aws(0, environ)
    try:
        yield service.url
    finally:
        service.stop()


def create_bucket(url: str, name: str) -> None:
    """Create a bucket in the embedded AWS at `url`."""
    client("s3", url).create_bucket(Bucket=name)


def _connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)

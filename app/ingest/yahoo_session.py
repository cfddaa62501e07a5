"""The HTTP session that yfinance talks through: counts, remembers statuses, and can be pointed elsewhere."""

from __future__ import annotations

import math
import socket
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from curl_cffi import CurlOpt, requests

from app.errors import SettingsError

_CHART_PATH = "/v8/finance/chart/"
_LONGEST_RETRY_AFTER_S = 120.0
"""Whoever asks for a longer wait is better met by a failed attempt, and a later run, than by a worker asleep."""


@dataclass
class Attempt:
    """What Yahoo said while one attempt of one thread ran."""

    requests: int = 0
    answer: Any = None
    """The last response of the chart endpoint (curl_cffi's), None before there is one."""

    @property
    def status(self) -> int | None:
        """HTTP status of the last chart answer."""
        return None if self.answer is None else int(self.answer.status_code)

    @property
    def retry_after_s(self) -> float:
        """Seconds that Yahoo asked to wait, 0 when it did not."""
        return 0.0 if self.answer is None else _seconds(self.answer.headers.get("Retry-After"))

    def names_symbol(self) -> bool:
        """Whether the last answer is a well-formed chart of a known symbol, with or without bars."""
        try:
            return bool(self.answer.json()["chart"]["result"][0]["meta"]["symbol"])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return False


class YahooSession(requests.Session[requests.Response]):
    """A curl_cffi session for yfinance.

    base_url: the server that stands in for all of Yahoo's hosts, None for Yahoo itself. Requests keep
    Yahoo's host names and are merely connected elsewhere: yfinance keeps a cookie only when its domain is
    Yahoo's, and without one it would fetch a new one for every request, one thread at a time.
    """

    def __init__(self, base_url: str | None = None) -> None:
        self._scheme, self._port, options = _elsewhere(base_url) if base_url else ("", 0, None)
        super().__init__(impersonate="chrome", curl_options=options)
        self._local = threading.local()

    def begin(self) -> Attempt:
        """Start to note what this thread is told, from zero."""
        attempt = Attempt()
        self._local.attempt = attempt
        return attempt

    def request(self, method: Any, url: str, *args: Any, **kwargs: Any) -> Any:
        """As curl_cffi's, noting the answer."""
        attempt: Attempt | None = getattr(self._local, "attempt", None)
        if attempt is not None:
            attempt.requests += 1
        response = super().request(method, self._redirected(url), *args, **kwargs)
        if attempt is not None and _CHART_PATH in url:
            attempt.answer = response
        return response

    def _redirected(self, url: str) -> str:
        if not self._scheme:
            return url
        parts = urlsplit(url)
        return urlunsplit((self._scheme, f"{parts.hostname}:{self._port}", parts.path or "/", parts.query, ""))


def _elsewhere(base_url: str) -> tuple[str, int, dict[CurlOpt, Any]]:
    """Scheme and port of a server, and the options that connect every host name to it."""
    parts = urlsplit(base_url)
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        address = socket.gethostbyname(parts.hostname or "")
    except (KeyError, ValueError, OSError) as exc:
        raise SettingsError(f"STOCKFLOW_YAHOO_URL={base_url!r} is not of the form http://HOST:PORT") from exc
    return parts.scheme, port, {CurlOpt.RESOLVE: [f"*:{port}:{address}"], CurlOpt.NOPROXY: "*"}


def _seconds(retry_after: str | None) -> float:
    try:
        seconds = float(retry_after or 0)
    except ValueError:  # an HTTP date: rare, and our own back-off serves
        return 0.0
    return 0.0 if math.isnan(seconds) else min(max(0.0, seconds), _LONGEST_RETRY_AFTER_S)

"""The HTTP session that yfinance talks through: counts, remembers answers, and can be pointed elsewhere."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from curl_cffi import CurlOpt, requests

from app import contract
from app.clock import system_clock
from app.errors import SettingsError

CHART_PATH = "/v8/finance/chart/"


@dataclass(frozen=True)
class Elsewhere:
    """Where requests to Yahoo's hosts are connected: to Yahoo itself, or to a server that stands in for all of them.

    Requests keep Yahoo's host names: yfinance keeps a cookie only when its domain is Yahoo's, and without one it
    would fetch a new one for every request, one thread at a time.
    """

    scheme: str = ""
    port: int = 0
    address: str = ""

    @classmethod
    def at(cls, base_url: str | None) -> Elsewhere:
        """By the server's address, None is Yahoo itself; SettingsError when it is no address."""
        if not base_url:
            return cls()
        try:
            parts = urlsplit(base_url)
            usual_port = {"http": 80, "https": 443}[parts.scheme]
            if not parts.hostname:  # which gethostbyname would take for this machine
                raise ValueError(base_url)
            return cls(parts.scheme, parts.port or usual_port, socket.gethostbyname(parts.hostname))
        except (KeyError, ValueError, OSError) as exc:
            raise SettingsError(f"{contract.ENV_YAHOO_URL}={base_url!r} is not of the form http://HOST:PORT") from exc

    def url(self, url: str) -> str:
        """The URL of Yahoo's with which the server is asked."""
        if not self.scheme:
            return url
        parts = urlsplit(url)
        return urlunsplit((self.scheme, f"{parts.hostname}:{self.port}", parts.path or "/", parts.query, ""))

    def options(self) -> dict[CurlOpt, Any]:
        """Options of curl that connect every host name to the server."""
        if not self.scheme:
            return {}
        return {CurlOpt.RESOLVE: [f"*:{self.port}:{self.address}"], CurlOpt.NOPROXY: "*"}


@dataclass
class Attempt:
    """What Yahoo said while one attempt of one thread ran."""

    requests: int = 0
    answer: Any = None
    """The last response of the chart endpoint (curl_cffi's), None before there is one."""


class YahooSession(requests.Session[requests.Response]):
    """A curl_cffi session for yfinance."""

    def __init__(self, elsewhere: Elsewhere = Elsewhere()) -> None:
        self._elsewhere = elsewhere
        super().__init__(impersonate="chrome", curl_options=elsewhere.options() or None)
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
        response = super().request(method, self._elsewhere.url(url), *args, **kwargs)
        if attempt is not None and CHART_PATH in url:
            attempt.answer = response
        return response


def retry_after_s(headers: Mapping[str, str | None]) -> float:
    """Seconds that an answer asks to wait, in either form of the header (RFC 9110, 10.2.3); 0 when it does not."""
    text = headers.get("Retry-After") or ""
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = _until(text, headers.get("Date"))
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _until(date: str, sent: str | None) -> float:
    """From the answer's own date to another, since the server's clock need not be ours; else from now."""
    try:
        since = parsedate_to_datetime(sent) if sent else system_clock()
        return (parsedate_to_datetime(date) - since).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return 0.0

"""Yahoo's cookie and crumb: yfinance gets them, keeps them and knows what to do when they are refused."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from app.ingest.yahoo_session import YahooSession

NONSENSE = (ValueError, KeyError, TypeError, IndexError, AttributeError)
"""What yfinance raises on a page that it does not expect."""
_ONE_AT_A_TIME = threading.Lock()
"""yfinance has one session for the whole process."""
_CRUMB = re.compile(r"[^\s<>{}]{1,64}")
"""What may be one: yfinance takes whatever it is answered for a crumb, `Too Many Requests` too, and keeps it."""


@dataclass(frozen=True)
class Credentials:
    """What a request may carry besides its question; without any the chart answers too.

    cookies: http.cookiejar's.
    """

    crumb: str | None = None
    cookies: Iterable[Any] = ()


@cache
def prepare_yfinance() -> None:
    """Make yfinance raise instead of hiding, and keep its SQLite caches in a folder of this process's own.

    Importing it takes a second, so nobody does before this is called. It opens its caches once a process.
    """
    import yfinance  # noqa: PLC0415

    folder = tempfile.mkdtemp(prefix="stockflow-yfinance-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="yfinance")  # its use of pandas
    yfinance.config.debug.hide_exceptions = False
    yfinance.set_tz_cache_location(folder)


def obtain(session: YahooSession, timeout_s: float, refused: Credentials | None = None) -> Credentials:
    """Cookie and crumb from yfinance, by its other strategy if it had those that were `refused`.

    Blocks for its two requests, the first time for its import too. Without an answer there are no credentials.
    """
    with _ONE_AT_A_TIME:
        return _obtain(session, timeout_s, refused)


def _obtain(session: YahooSession, timeout_s: float, refused: Credentials | None) -> Credentials:
    prepare_yfinance()
    from peewee import PeeweeException  # noqa: PLC0415
    from yfinance.cache import get_cookie_cache  # noqa: PLC0415
    from yfinance.data import YfData  # noqa: PLC0415
    from yfinance.exceptions import YFException  # noqa: PLC0415

    data = YfData(session=session)
    try:
        if refused is not None and refused.crumb is not None and refused.crumb == data._crumb:
            data._set_cookie_strategy("csrf" if data._cookie_strategy == "basic" else "basic")
            get_cookie_cache().store("curlCffi", None)  # else the other strategy takes the refused cookie up again
        crumb, _ = data._get_cookie_and_crumb(timeout_s)
    except (YFException, OSError, PeeweeException, *NONSENSE):  # curl_cffi's errors are OSErrors
        crumb = None
    if not _CRUMB.fullmatch(crumb or ""):
        crumb = data._crumb = None
    return Credentials(crumb, tuple(session.cookies.jar))

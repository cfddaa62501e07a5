"""Bodies that a server need not make again, as many as fit into a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from app.errors import SettingsError


class KeptBodies:
    """Bodies by what was asked for; the one that was used least recently makes room."""

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes` bounds the bodies' sum; 0 keeps none. SettingsError when it is negative."""
        if limit_bytes < 0:
            raise SettingsError("the memory for kept bodies must not be negative")
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, asked: Hashable) -> bytes | None:
        """The body that was put there, None when there is none or it made room."""
        body = self._kept.get(asked)
        if body is not None:
            self._kept.move_to_end(asked)
        return body

    def put(self, asked: Hashable, body: bytes) -> None:
        """Keep a body, unless it is larger than the bound itself."""
        self._bytes += len(body) - len(self._kept.pop(asked, b""))
        self._kept[asked] = body
        while self._bytes > self._limit_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= len(dropped)

"""Carries connections between a port of this machine and a socket file, which namespaces of networks share.

``python -m tests.pipeline.relay FROM TO``, each of which is a port of 127.0.0.1 or a path.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

_BYTES = 65536
_HOST = "127.0.0.1"


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_BYTES):
            writer.write(piece)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


async def relay(source: str, target: str) -> None:
    """Serve until cancelled."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened = (
            asyncio.open_connection(_HOST, int(target)) if target.isdigit() else asyncio.open_unix_connection(target)
        )
        try:
            there, back = await opened
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, back), _copy(there, writer))

    if source.isdigit():
        server = await asyncio.start_server(carry, _HOST, int(source))
    else:
        server = await asyncio.start_unix_server(carry, source)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(relay(*sys.argv[1:]))

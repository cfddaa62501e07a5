"""The embedded Yahoo as a process: `python -m embedded.yahoo --market simulated --port 0`.

When it is ready it prints one JSON line, {"url", "now", "tickers", "days"}, on standard output; it ends on
SIGTERM or SIGINT. What is wrong with a flag or a file is one line on standard error and the error's exit code.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import signal
import sys
from collections.abc import Sequence
from datetime import datetime

from app.clock import clock_from_text
from app.errors import SettingsError, StockflowError
from embedded.aws.ports import PortInUseError
from embedded.market.bars import Market, read_bars_file
from embedded.market.simulated import settings_from_flags, simulate
from embedded.yahoo.faults import KINDS, Faults
from embedded.yahoo.server import KEPT_MIB, YahooServer

_SIMULATED = "simulated"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; returns the exit code."""
    flags = _parser().parse_args(arguments)
    try:
        market = _market(flags.market, flags.sim)
        faults = Faults(
            latency_ms=flags.latency_ms,
            share=flags.fault_share,
            kinds=tuple(kind.strip() for kind in flags.fault_kinds.split(",")),
            seed=flags.fault_seed,
            retry_after_s=flags.retry_after,
            rate_per_s=flags.rate,
            storm=flags.storm,
        )
        server = YahooServer(market, faults=faults, now=_now(flags.now), kept_mib=flags.kept_mib)
        asyncio.run(_serve(server, flags.port))
    except StockflowError as exc:
        print(f"embedded Yahoo: {exc}", file=sys.stderr)
        return exc.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m embedded.yahoo", description="A local stand-in for Yahoo.")
    add = parser.add_argument
    add("--market", default=_SIMULATED, metavar="simulated|PATH", help="the simulated market, or a Parquet of bars")
    add("--sim", action="append", default=[], metavar="NAME=VALUE", help="a setting of the simulated market")
    add("--port", type=int, default=0, help="0 takes any free one")
    add("--now", metavar="ISO", help="the instant at which it stands; default: two hours after the last bar")
    add("--latency-ms", type=float, default=0.0, help="time before each answer")
    add("--rate", type=float, default=0.0, help="chart requests a second before 429; 0 is no limit")
    add("--retry-after", type=int, default=1, metavar="SECONDS", help="least Retry-After of a 429")
    add("--fault-share", type=float, default=0.0, help="share of chart requests that fail, 0 to 1")
    add("--fault-kinds", default=",".join(KINDS), help="comma-separated, of %(default)s")
    add("--fault-seed", type=int, default=0, help="of the draws of faults")
    add("--kept-mib", type=int, default=KEPT_MIB, help="memory for charts that may be asked for again")
    add("--storm", action="store_true", help="answer 429 to every chart request")
    return parser


def _market(source: str, sim: Sequence[str]) -> Market:
    if source == _SIMULATED:
        return simulate(settings_from_flags(sim))
    if sim:
        raise SettingsError(f"--sim {sim[0]} is a setting of --market {_SIMULATED}, not of the file {source}")
    return read_bars_file(source)


def _now(text: str | None) -> datetime | None:
    return clock_from_text(text)() if text else None


async def _serve(server: YahooServer, port: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, ended.set)
    try:
        runner, url = await server.start(port)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise PortInUseError(port, "--port") from exc
        raise
    ready = {
        "url": url,
        "now": server.now.isoformat(),
        "tickers": server.market.tickers,
        "days": [day.isoformat() for day in server.market.days],
    }
    print(json.dumps(ready), flush=True)
    await ended.wait()
    await runner.cleanup()


if __name__ == "__main__":
    sys.exit(main())

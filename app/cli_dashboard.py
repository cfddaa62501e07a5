"""The command of the dashboard. `dashboard` and its libraries are imported when it runs."""

from __future__ import annotations

import os
import webbrowser
from functools import partial
from pathlib import Path

import click

from app import contract


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8050, show_default=True, help="0 takes a free one.")
@click.option("--run-id", envvar=contract.ENV_RUN_ID, default="", help="The run to show first; by default the newest.")
@click.option("--browser/--no-browser", default=True, help="Open it in a browser where this machine has a screen.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("build/up"),
    show_default=True,
    help="Where `stockflow up` says what it runs, unless STOCKFLOW_*_BUCKET name the buckets.",
)
def dashboard(port: int, run_id: str, browser: bool, folder: Path) -> None:
    """Show the runs of a deployment on one page that updates by itself, until Ctrl-C.

    Reads S3, and Step Functions where STATE_MACHINE names the state machine: of the stack that is up on this machine,
    or of AWS when STOCKFLOW_MARKET_BUCKET, STOCKFLOW_MODEL_BUCKET and STOCKFLOW_PREDICTIONS_BUCKET name its buckets.
    While nothing is up it shows what the last `stockflow run` left in build/run. It writes nothing, and listens on
    127.0.0.1 alone.

    \b
    Examples:
      stockflow dashboard
      stockflow dashboard --port 0 --no-browser --run-id try-1
    """
    from app.cli_sources import RUN
    from dashboard.listener import listen, url_of
    from dashboard.source import find_source, named_buckets

    named_buckets(os.environ)
    with listen(port) as listener:
        url = url_of(listener)
        click.echo(f"dashboard at {url}: Ctrl-C ends it")
        from dashboard.server import serve  # takes seconds, in which the browser waits

        if browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            webbrowser.open(url)
        serve(listener, partial(find_source, os.environ, folder, RUN), run_id)

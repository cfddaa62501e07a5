"""The page served on this machine: what is asked for by the browser, and answered from the last reading."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dash import Dash, Input, Output, State
from werkzeug.serving import make_server

from dashboard.answers import Answers
from dashboard.page import PARTS, page
from dashboard.source import Source
from dashboard.watch import Watch
from embedded.aws.ports import HOST


def serve(listener: socket.socket, find: Callable[[], Source], run_id: str) -> None:
    """Serve the page until Ctrl-C or SIGTERM. find: where to read; run_id: empty for the newest run."""
    watch = Watch(find)
    watch.start()
    with serving(listener, make_app(watch, run_id)):
        threading.Event().wait()


@contextmanager
def serving(listener: socket.socket, app: Dash) -> Iterator[None]:
    """Answer the requests that come to a socket, in threads, until the block ends."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line for each request
    host, port = listener.getsockname()
    server = make_server(host, port, app.server, threaded=True, fd=listener.fileno())
    thread = threading.Thread(target=server.serve_forever, name="page", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def make_app(watch: Watch, run_id: str) -> Dash:
    """The Dash application over what `watch` reads; it asks as often as that reads."""
    app = Dash("dashboard", title="stockflow", update_title="")
    app.server.config["TRUSTED_HOSTS"] = [HOST, "localhost"]  # no name that another page was loaded by leads here
    app.layout = page(run_id, watch.every_s)
    answers = Answers(watch)
    marks = {part: Input(f"mark-{part}", "data") for part in PARTS}
    run = State("run", "value")
    app.callback(
        Output("source", "children"),
        Output("trouble", "children"),
        Output("welcome-place", "children"),
        Output("run-parts", "hidden"),
        Output("run", "options"),
        *(Output(mark.component_id, "data") for mark in marks.values()),
        Input("clock", "n_intervals"),
        Input("run", "value"),
        *(State(mark.component_id, "data") for mark in marks.values()),
    )(answers.look)
    app.callback(
        Output("tiles", "children"),
        Output("execution", "children"),
        Output("stream-place", "children"),
        *_chart("loss", "training-words"),
        *marks.values(),
        run,
    )(answers.overview)
    app.callback(
        Output("choosers", "hidden"),
        *(Output(name, prop) for name in ("ticker", "horizon") for prop in ("options", "value")),
        *_chart("forecast", "forecast-words"),
        Output("newest-place", "children"),
        *_chart("error", "error-words"),
        Output("accuracy-place", "children"),
        Output("moves-words", "children"),
        Output("moves", "children"),
        marks["forecasts"],
        Input("ticker", "value"),
        Input("horizon", "value"),
        run,
    )(answers.predictions)
    app.callback(*_chart("coverage", "coverage-words"), Output("lacks-place", "children"), marks["coverage"], run)(
        answers.coverage
    )
    app.callback(Output("models-place", "children"), marks["models"], run)(answers.models)
    return app


def _chart(name: str, words: str) -> tuple[Output, ...]:
    return Output(name, "figure"), Output(f"{name}-frame", "hidden"), Output(words, "children")

"""The run at a glance: tiles, phases, states, shards, training and stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd
from dash import html

from dashboard import text
from dashboard.execution import BEGUN, COUNTED, DONE, RUNNING, Phase, Run
from dashboard.parts import Part, pill, sentence, table, tone
from dashboard.snapshot import Snapshot
from embedded.execution import StateRun

NEWEST: Final = ":newest"
"""Chooses whichever run is the newest; no run bears such a name."""


def run_options(runs: Sequence[str], shown: str) -> list[dict[str, str]]:
    """The runs to choose from; the first is whichever is the newest. shown: one that may have left nothing yet."""
    newest = f"newest: {runs[0]}" if runs else "newest"
    names = runs if shown in runs or not shown else (*runs, shown)
    return [{"label": newest, "value": NEWEST}, *({"label": run, "value": run} for run in names)]


def welcome() -> Part:
    """What to do while there is no run at all."""
    return html.Section(
        [
            html.H2("Nothing has run yet"),
            html.P("The buckets are there and hold no run. Start one, and it shows up here by itself:"),
            html.Pre("stockflow start --follow", id="what-to-run"),
            html.P(
                [
                    *("That is for the stack of ", html.Code("stockflow up"), " on this machine. On AWS start an "),
                    *("execution of the state machine with the input ", html.Code("{}"), ": docs/deploy.md says how."),
                ]
            ),
        ],
        className="card wide",
        id="welcome",
    )


def tiles(snapshot: Snapshot) -> list[Part]:
    """The run in six figures."""
    run, coverage = snapshot.run, snapshot.coverage
    current = snapshot.models.find(snapshot.models.current)
    best = next((row for row in reversed(snapshot.accuracies) if row.known), None)
    return [
        _tile("Run", *_run_words(run), "run"),
        _tile(
            "Bars",
            f"{coverage.rows:,}" if coverage else text.NONE,
            f"{coverage.coverage:.0%} of {coverage.requested} tickers, {len(coverage.days)} days" if coverage else "",
            "bars",
        ),
        _tile(
            "Model that serves",
            text.skill(current.metrics.test.skill) if current and current.metrics else text.NONE,
            f"skill on its test days; {current.model_id}" if current else "none is promoted",
            "model",
        ),
        _tile("Stream", *_stream_words(run), "stream"),
        _tile("Predictions", f"{len(snapshot.forecasts):,}", _newest(snapshot.forecasts), "predictions"),
        _tile(
            f"Error, {best.horizon_min} min ahead" if best else "Error",
            text.bp(best.mae_bp) if best else text.NONE,
            f"“the price stays”: {text.bp(best.mae_still_bp)}" if best else "once predicted minutes have been seen",
            "error",
        ),
    ]


def _tile(label: str, value: Part, note: Part, name: str) -> Part:
    return html.Div(
        [html.Div(label, className="label"), html.Div(value, className="value"), html.Div(note, className="note")],
        className="tile",
        id=f"tile-{name}",
    )


def _run_words(run: Run) -> tuple[Part, Part]:
    running = [phase.name for phase in run.phases if phase.status in {RUNNING, BEGUN}]
    if not run.status:
        done = sum(phase.status == DONE for phase in run.phases)
        return ", ".join(running) or f"{done} of {len(run.phases)} phases done", run.run_id
    took = (run.stopped - run.started).total_seconds() if run.stopped and run.started else None
    how = f"in {text.seconds(took)}" if took is not None else f"since {run.started:%H:%M:%S} UTC"
    return pill(run.status), f"{how}; {run.run_id}"


def _stream_words(run: Run) -> tuple[Part, Part]:
    stream = run.stream
    if stream is None:
        return text.NONE, "none has been started"
    lag = "lag unknown" if stream.lag_s is None else f"lag {stream.lag_s:.0f} s"
    behind = f", {stream.behind_min} min behind the ticks" if stream.behind_min else ""
    return stream.state, f"{lag}{behind}"


def _newest(forecasts: pd.DataFrame) -> str:
    return f"newest as of {text.exchange_minute(forecasts['as_of'].max())}, New York" if len(forecasts) else ""


def execution(snapshot: Snapshot) -> list[Part]:
    """Phases, states, shards."""
    run = snapshot.run
    parts: list[Part] = [html.Ol([_phase(phase) for phase in run.phases], className="phases", id="phases")]
    if run.why:
        parts.append(html.P(run.why, className="trouble", id="why"))
    if run.states:
        parts.append(_states(snapshot))
    else:
        parts.append(
            html.P(
                "Step Functions is not asked, so the phases are those that the run's objects tell: a result is there"
                " when a phase has succeeded. Set STATE_MACHINE to see the states.",
                className="hint",
            )
        )
    if run.shards:
        parts += [html.H3("Shards of the ingest"), _shards(run)]
    return parts


def _phase(phase: Phase) -> Part:
    words = [html.B(phase.name), pill(phase.status), html.Span(phase.note, className="note")]
    if phase.seconds is not None:
        words.append(html.Span(text.seconds(phase.seconds), className="note"))
    return html.Li(words, className=f"phase {tone(phase.status)}", id=f"phase-{phase.name}")


def _states(snapshot: Snapshot) -> Part:
    run = snapshot.run

    def took(state: StateRun) -> float:
        return ((state.ended or snapshot.read_at) - state.entered).total_seconds()

    around = {id(state.inside) for state in run.states}
    longest = max((took(state) for state in run.states if id(state) not in around), default=0) or 1

    def bar(state: StateRun) -> Part:
        if id(state) in around:
            return ""
        return html.Div(html.Div(style={"width": f"{100 * took(state) / longest:.1f}%"}), className="bar")

    rows = [
        (
            state.name,
            pill(state.status),
            text.seconds(took(state)),
            bar(state),
            f"try {state.attempts}" if state.attempts > 1 else "",
        )
        for state in reversed(run.states)
    ]
    return html.Details(
        [
            html.Summary(f"{len(rows)} states, the newest first"),
            table(("state", "", "took", "", ""), rows, name="states", numbers=(2,)),
        ],
        open=True,
    )


def _shards(run: Run) -> Part:
    rows = [
        (
            shard.name,
            pill(DONE if shard.done else "open"),
            f"{shard.planned:,}",
            ", ".join(f"{count} {status}" for status, count in sorted(shard.tickers.items())),
            f"{shard.rows:,}" if shard.done else text.NONE,
        )
        for shard in run.shards
    ]
    return table(("shard", "", "tickers", "of them", "bars"), rows, name="shards", numbers=(2, 4))


def training_words(run: Run) -> str:
    """What the loss chart shows."""
    training = run.training
    if training is None:
        return "Losses come with the train phase."
    far = f"epoch {len(training.history) + bool(training.running)} of {training.epochs or '?'}"
    return f"{training.model_id}: {'trained' if training.over else far}"


def stream(snapshot: Snapshot) -> Part:
    """The stream's health."""
    found = snapshot.run.stream
    if found is None:
        return sentence("The stream's health comes with the serve phase.")
    health = found.health
    lag = text.NONE if found.lag_s is None else text.seconds(found.lag_s)
    rows: list[tuple[Part, Part]] = [
        ("state", pill(found.state)),
        ("written", f"{health.at:%Y-%m-%d %H:%M:%S} UTC"),
        ("lag behind its ticks", lag),
        ("minutes not predicted yet", text.NONE if found.behind_min is None else f"{found.behind_min}"),
        ("newest bar", f"{text.instant(health.newest_bar)} UTC" if health.newest_bar else text.NONE),
        *((name, f"{health.counts[name]:,}") for name in COUNTED),
        ("model", health.model_id),
    ]
    if health.why:
        rows.insert(1, ("why", health.why))
    if health.refused:
        rows.append(("promoted model refused", health.refused))
    return table(("", ""), rows, name="stream")
